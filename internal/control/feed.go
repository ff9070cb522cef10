package control

import (
	"context"
	"reflect"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
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
			return c.withPeers(set), nil
		}
		select {
		case <-ctx.Done():
			return c.withPeers(set), nil
		case <-changed:
		}
	}
}

// withPeers adds the other workers to a worker's assignments. They are not kept with them: they
// would be as many as workers, for each.
func (c *Control) withPeers(set fleet.AssignmentSet) fleet.AssignmentSet {
	set.Peers = c.records.Peers(set.Worker)
	return set
}

// refreshFeed derives a worker's assignments anew, without peers, unless nothing around it has
// changed. It gives them a new revision if they, or the peers, differ. Revisions begin with the
// server's clock, so that they differ from those of the server before it.
func (c *Control) refreshFeed(id fleet.WorkerID) fleet.AssignmentSet {
	c.feeds.Lock() // one at a time, so that an older derivation doesn't replace a newer one
	defer c.feeds.Unlock()
	report, _, _ := c.obs.report(id)
	last := c.obs.feedOf(id)
	from := derivedFrom{stamp: c.records.Stamp(id, last.strangers), report: report,
		authority: c.authorityVersion()}
	if last.set.Revision != 0 && last.from == from {
		return last.set
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
	next := feed{set: deriveAssignments(around, reported), strangers: around.Strangers,
		from: derivedFrom{stamp: around.Stamp, report: report, authority: from.authority}}
	if c.cfg.Trace {
		addTraces(next.set, around.Moves)
	}
	next.set.Private = c.privateOf(next.set.Assignments)
	next.set.Authority = from.authority
	return c.obs.publish(next, c.now())
}

// derivedFrom says of what a worker's assignments were derived. It is read with it or before, so
// that they are at least as new.
type derivedFrom struct {
	stamp     records.Stamp
	report    *fleet.WorkerReport
	authority string
}

// feedOf returns what is kept of a worker's assignments.
func (o *observer) feedOf(id fleet.WorkerID) feed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.getLocked(id).feed
}

// publish keeps a worker's assignments under a new revision, unless they and the peers are what
// they were.
func (o *observer) publish(next feed, now time.Time) fleet.AssignmentSet {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &o.getLocked(next.set.Worker).feed
	next.set.Revision, next.since = f.set.Revision, f.since
	same := f.set.Revision != 0 && f.from.stamp.SamePeers(next.from.stamp) &&
		reflect.DeepEqual(next.set, f.set)
	if !same {
		next.set.Revision, next.since = max(f.set.Revision+1, now.UnixMilli()), now
	}
	*f = next
	return f.set
}
