package control

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// Events of the services of a machine.
const (
	eventServiceStart = "service_start"
	eventServiceExit  = "service_exit" // it ended by itself
	eventServiceFail  = "service_fail" // it could not be started
)

// Bounds of what services take of a machine's history, so that it has room for the machine itself,
// whatever they do. What an incarnation may add is refused beyond them, and never makes room for
// itself: else what was pushed out would be news again.
const (
	maxServiceLines = 32 // of all incarnations
	maxEndLines     = 24 // of one incarnation: exits and failures
	maxEndsOfOne    = 3  // of one service of it: different ones
	maxStartLines   = 8  // of one incarnation
	maxReason       = 200
)

// noteServices notes in a started machine's history which of its services were started, and which
// ended by themselves.
func (c *Control) noteServices(ctx context.Context, m records.Row[fleet.Machine],
	s plan.Sight) error {
	if slices.Equal(c.obs.told(s.Worker, s.VM), s.VM.Services) {
		return nil
	}
	history, err := c.records.History(ctx, m.Val.ID)
	if err != nil {
		return err
	}
	h := &serviceHistory{ring: history.Val,
		base: fleet.MachineEvent{State: m.Val.State, Source: sourceWorker(s.Worker),
			Instance: m.Val.Placement.Instance}}
	if h.tell(s.VM.Services) {
		t := c.records.Begin()
		records.Set(t, history, h.ring)
		if err := t.Commit(ctx); err != nil {
			return err
		}
	}
	c.obs.toldServices(s.Worker, s.VM)
	return nil
}

// serviceHistory adds to a machine's history what its services did in one incarnation. A service
// that ends over and over in the same way has one line for that, which moves to the end.
type serviceHistory struct {
	ring []fleet.MachineEvent
	base fleet.MachineEvent
	news bool
}

// tell adds what reports say, and reports whether any of it was news.
func (h *serviceHistory) tell(reports []fleet.ServiceReport) bool {
	type fact struct {
		at   time.Time
		tell func(fleet.ServiceReport, time.Time)
		of   fleet.ServiceReport
	}
	var facts []fact
	for _, r := range reports {
		facts = append(facts, fact{r.ExitedAt, h.tellEnd, r}, fact{r.StartedAt, h.tellStart, r})
	}
	slices.SortStableFunc(facts, func(a, b fact) int { return a.at.Compare(b.at) })
	for _, f := range facts {
		if !f.at.IsZero() && !h.forgotten(f.at) {
			f.tell(f.of, f.at)
		}
	}
	return h.news
}

// forgotten says of something that happened then whether a full history has come past it.
func (h *serviceHistory) forgotten(at time.Time) bool {
	return len(h.ring) >= maxEvents && at.Before(h.ring[0].Time)
}

func (h *serviceHistory) ours(e fleet.MachineEvent) bool { return e.Instance == h.base.Instance }

func isEnd(e fleet.MachineEvent) bool {
	return e.Event == eventServiceExit || e.Event == eventServiceFail
}

func isService(e fleet.MachineEvent) bool { return isEnd(e) || e.Event == eventServiceStart }

// names are the services that a line is about.
func names(e fleet.MachineEvent) []string { return strings.Fields(e.Info["service"]) }

// tellEnd adds that a service has ended by itself, or could not be started.
func (h *serviceHistory) tellEnd(r fleet.ServiceReport, at time.Time) {
	var of []int // lines of ends of this service
	ends, told, times := 0, 0, r.Restarts
	for i, e := range h.ring {
		if !isEnd(e) || !h.ours(e) {
			continue
		}
		ends++
		if e.Info["service"] == r.Name {
			of = append(of, i)
			told = max(told, number(e.Info["restarts"]))
		}
	}
	if r.Restarts <= told || len(of) == 0 && ends >= maxEndLines {
		return
	}
	line := h.base
	line.Time, line.Event = at, eventServiceExit
	if r.Unstartable {
		line.Event = eventServiceFail
	}
	reason := r.Exit
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	times -= told
	line.Info = map[string]string{"service": r.Name, "reason": reason,
		"restarts": strconv.Itoa(r.Restarts),
		"again_in": (time.Duration(r.RetryMS) * time.Millisecond).String()}
	same := slices.IndexFunc(of, func(i int) bool {
		return h.ring[i].Event == line.Event && h.ring[i].Info["reason"] == reason
	})
	switch {
	case same >= 0:
		old := h.ring[of[same]]
		times += number(cmp.Or(old.Info["times"], "1"))
		line.Info["since"] = cmp.Or(old.Info["since"], old.Time.UTC().Format(time.RFC3339))
		h.remove(of[same])
	case len(of) >= maxEndsOfOne || ends >= maxEndLines:
		h.remove(of[0])
	}
	if times > 1 {
		line.Info["times"] = strconv.Itoa(times)
	}
	h.add(line)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// tellStart adds that a service was started for the first time, or is ready again after it had
// ended.
func (h *serviceHistory) tellStart(r fleet.ServiceReport, at time.Time) {
	starts, newest, known := 0, -1, -1
	for i, e := range h.ring {
		if !h.ours(e) || !isService(e) {
			continue
		}
		if e.Event == eventServiceStart {
			starts, newest = starts+1, i
		}
		if slices.Contains(names(e), r.Name) {
			known = i
		}
	}
	switch {
	case r.State != "running" && r.State != "ready":
		return
	case known >= 0 && (!isEnd(h.ring[known]) || r.State != "ready" ||
		at.Before(h.ring[known].Time)):
		return
	}
	if newest >= 0 && (newest == len(h.ring)-1 || starts >= maxStartLines) &&
		!slices.Contains(names(h.ring[newest]), r.Name) {
		e := h.ring[newest]
		e.Info = map[string]string{"service": strings.Join(append(names(e), r.Name), " ")}
		h.ring[newest], h.news = e, true
		h.dropStarts(r.Name, newest)
		return
	}
	h.dropStarts(r.Name, len(h.ring))
	line := h.base
	line.Time, line.Event, line.Info = at, eventServiceStart, map[string]string{"service": r.Name}
	h.add(line)
}

// dropStarts takes a service out of the lines of starts before the given one.
func (h *serviceHistory) dropStarts(name string, before int) {
	for i := before - 1; i >= 0; i-- {
		e := h.ring[i]
		if e.Event != eventServiceStart || !h.ours(e) || !slices.Contains(names(e), name) {
			continue
		}
		left := slices.DeleteFunc(names(e), func(n string) bool { return n == name })
		if len(left) == 0 {
			h.remove(i)
			continue
		}
		e.Info = map[string]string{"service": strings.Join(left, " ")}
		h.ring[i] = e
	}
}

func (h *serviceHistory) remove(i int) { h.ring = slices.Delete(h.ring, i, i+1) }

// add adds a line. Where services have more than their share, the oldest line of an earlier
// incarnation's makes room.
func (h *serviceHistory) add(line fleet.MachineEvent) {
	h.news = true
	lines, old := 0, -1
	for i, e := range h.ring {
		if isService(e) {
			lines++
			if old < 0 && !h.ours(e) {
				old = i
			}
		}
	}
	if lines >= maxServiceLines && old >= 0 {
		h.remove(old)
	}
	h.ring = append(h.ring, line)
	if over := len(h.ring) - maxEvents; over > 0 {
		h.ring = slices.Delete(h.ring, 0, over)
	}
}
