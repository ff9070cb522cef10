package control

import (
	"context"
	"reflect"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Assignments implements fleet.WorkerFeed.
func (c *Control) Assignments(ctx context.Context, worker fleet.WorkerID,
	after int64) (fleet.AssignmentSet, error) {
	for {
		if err := c.ready(); err != nil {
			return fleet.AssignmentSet{}, err
		}
		if _, err := c.knownWorker(worker); err != nil {
			return fleet.AssignmentSet{}, err
		}
		changed := c.Changed()
		set := c.refreshFeed(worker)
		if set.Revision != after {
			return set, nil
		}
		select {
		case <-ctx.Done():
			return set, nil
		case <-changed:
		}
	}
}

// refreshFeed derives a worker's assignments anew, and gives them a new revision if they differ.
// Revisions begin with the server's clock, so that they differ from those of the server before it.
func (c *Control) refreshFeed(id fleet.WorkerID) fleet.AssignmentSet {
	c.feeds.Lock() // one at a time, so that an older derivation doesn't replace a newer one
	defer c.feeds.Unlock()
	report, _, _ := c.obs.report(id)
	from := derivedFrom{version: c.records.Version(), report: report}
	if set, ok := c.obs.derived(id, from); ok {
		return set
	}
	var reported []fleet.VMReport
	if report != nil {
		reported = report.VMs
	}
	machines := make([]fleet.MachineID, len(reported))
	for i, v := range reported {
		machines[i] = v.Machine
	}
	around, ok := c.records.Around(id, machines)
	if !ok {
		return fleet.AssignmentSet{Worker: id}
	}
	set := deriveAssignments(around, reported)
	if c.cfg.Trace {
		addTraces(set, around.Moves)
	}
	set.Private = c.privateOf(set.Assignments)
	return c.obs.publish(set, from, c.now())
}

// derivedFrom says of what a worker's assignments were derived. It is read before they are, so that
// they are at least as new.
type derivedFrom struct {
	version int64
	report  *fleet.WorkerReport
}

// derived returns a worker's assignments if they were derived from the same already.
func (o *observer) derived(id fleet.WorkerID, from derivedFrom) (fleet.AssignmentSet, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &o.getLocked(id).feed
	return f.set, f.set.Revision != 0 && f.from == from
}

// publish keeps a worker's assignments under a new revision, unless they are what they were.
func (o *observer) publish(set fleet.AssignmentSet, from derivedFrom,
	now time.Time) fleet.AssignmentSet {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &o.getLocked(set.Worker).feed
	f.from = from
	set.Revision = f.set.Revision
	if f.set.Revision != 0 && reflect.DeepEqual(set, f.set) {
		return f.set
	}
	set.Revision = max(f.set.Revision+1, now.UnixMilli())
	f.set, f.since = set, now
	return set
}
