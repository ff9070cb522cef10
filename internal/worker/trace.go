package worker

import (
	"cmp"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

// Which part of the platform did something, as the spans say it.
const (
	partWorker   = "worker"
	partPlatform = "platform"
	partStore    = "store"
)

// placed is a part of a wait with its place in the trace.
type placed struct {
	name, by   string
	at, parent tracing.Context
	start, end time.Time
}

// place gives each part of a wait its place under whole. A part is under the shortest of those that
// it names, that contains it and that is longer, else under the whole, and never sticks out of it.
func place(parts []guestapi.Step, whole placed) []placed {
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts,
		func(a, b guestapi.Step) int { return cmp.Compare(b.Took, a.Took) })
	var all []placed
	for _, s := range parts { // what contains others comes before them
		p := placed{name: s.Name, by: cmp.Or(s.By, partPlatform), at: whole.at.Sibling(),
			parent: whole.at, start: s.Ended.Add(-s.Took), end: s.Ended}
		if s.Of != "" {
			above := shortest(all, whole, p.middle(), func(p placed) bool { return p.name == s.Of })
			p.parent = above.at
		}
		all = append(all, p)
	}
	above := map[tracing.Context]placed{whole.at: whole}
	for i := range all {
		p := &all[i]
		p.start, p.end = above[p.parent].clip(p.start), above[p.parent].clip(p.end)
		above[p.at] = *p
	}
	return all
}

// shortest returns the shortest part that is meant and was going on at a time, else the whole.
func shortest(all []placed, whole placed, at time.Time, meant func(placed) bool) placed {
	found := whole
	for _, p := range all {
		if !p.start.After(at) && !p.end.Before(at) && meant(p) &&
			p.end.Sub(p.start) < found.end.Sub(found.start) {
			found = p
		}
	}
	return found
}

func (p placed) middle() time.Time { return p.start.Add(p.end.Sub(p.start) / 2) }

// clip returns the moment of p that is next to a time.
func (p placed) clip(t time.Time) time.Time {
	switch {
	case t.Before(p.start):
		return p.start
	case t.After(p.end):
		return p.end
	}
	return t
}

// trace tells of the present wait. A request to the store is put under the shortest part in which
// it was made: the VM doesn't say for which.
func (m *machine) trace(failed string) {
	w, t := &m.measured, m.host.deps.Traces
	requests, more, total := w.requests.take()
	whole := placed{at: w.under.Sibling(), start: w.began, end: time.Now()}
	who := []attribute.KeyValue{tracing.Attr("machine", string(m.id)),
		tracing.Attr("worker", string(m.host.cfg.Worker))}
	t.Tell(tracing.Span{At: whole.at, Parent: w.under, Part: partWorker, Name: string(w.kind),
		Start: whole.start, End: whole.end, Err: failed,
		Attributes: append(who, tracing.Attr("vm", string(m.vmID())),
			tracing.AttrInt("store.requests", total.Requests),
			tracing.AttrInt("store.requests_left_out", more),
			tracing.AttrInt("store.bytes_read", total.BytesOut),
			tracing.AttrInt("store.bytes_written", total.BytesIn))})
	all := place(m.parts(), whole)
	for _, p := range all {
		t.Tell(tracing.Span{At: p.at, Parent: p.parent, Part: p.by, Name: p.name,
			Start: p.start, End: p.end})
	}
	for _, r := range requests {
		p := placed{start: r.ended.Add(-r.Took), end: r.ended}
		above := shortest(all, whole, p.middle(), func(placed) bool { return true })
		span := tracing.Span{At: whole.at.Sibling(), Parent: above.at, Part: partStore,
			Name: string(r.Op), Start: above.clip(p.start), End: above.clip(p.end),
			Attributes: []attribute.KeyValue{tracing.AttrInt("bytes_read", int64(r.Out)),
				tracing.AttrInt("bytes_written", int64(r.In)),
				tracing.Attr("result", expose.Result(r.Err))}}
		switch errs.KindOf(r.Err) {
		case "", errs.NotFound, errs.Conflict: // answers, too
		default:
			span.Err = r.Err.Error()
		}
		t.Tell(span)
	}
}

// vmID is the machine's VM, or "".
func (m *machine) vmID() fleet.VMID {
	if m.rec.Run == nil {
		return ""
	}
	return m.rec.Run.VM
}
