package control

import (
	"context"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Join implements fleet.WorkerFeed.
func (c *Control) Join(ctx context.Context, req fleet.JoinRequest) (fleet.JoinAnswer, error) {
	if err := c.ready(); err != nil {
		return fleet.JoinAnswer{}, err
	}
	if err := fleet.CheckName("worker", string(req.Worker)); err != nil {
		return fleet.JoinAnswer{}, err
	}
	if req.Capacity.CPUMillis <= 0 || req.Capacity.MemoryMiB <= 0 || !req.Address.IsValid() ||
		req.APIURL == "" {
		return fleet.JoinAnswer{},
			errs.New(errs.Invalid, "worker %s joins without capacity, address or API URL",
				req.Worker)
	}
	if err := req.CheckPlace(); err != nil {
		return fleet.JoinAnswer{}, err
	}
	var number uint32
	err := c.try(ctx, func() error {
		var err error
		number, err = c.admit(ctx, req)
		return err
	})
	if err != nil {
		return fleet.JoinAnswer{}, err
	}
	c.obs.heard(req.Worker, c.now())
	c.enqueueWaiting()
	c.broadcast()
	return fleet.JoinAnswer{Number: number, StoreURL: c.cfg.StoreURL, FleetID: c.cfg.FleetID}, nil
}

// admit records a worker that joins, or joins again.
func (c *Control) admit(ctx context.Context, req fleet.JoinRequest) (uint32, error) {
	t := c.records.Begin()
	old, known := c.records.Workers.Get(req.Worker)
	w := old.Val
	if err := c.checkMoved(old, known, req); err != nil {
		return 0, err
	}
	if err := c.checkAlone(req.Worker, req.Address, c.now()); err != nil {
		return 0, err
	}
	if !known {
		n := c.records.Counters()
		n.Val.Worker++
		records.Set(t, n, n.Val)
		w = fleet.Worker{ID: req.Worker, Number: n.Val.Worker, JoinedAt: c.now()}
		records.Set(t, c.records.Allocations.New(w.ID),
			fleet.Allocation{Worker: w.ID, Holders: map[fleet.MachineID]fleet.Allocated{}})
	}
	w.Address, w.APIURL, w.Capacity, w.Runtime = req.Address, req.APIURL, req.Capacity, req.Runtime
	w.Version, w.Release, w.Labels, w.Tunnel = req.Version, req.Release, req.Labels, req.Tunnel
	if known && reflect.DeepEqual(w, old.Val) {
		return w.Number, nil
	}
	records.Set(t, old, w)
	return w.Number, t.Commit(ctx)
}

// checkMoved refuses a living worker that says it is elsewhere now: calls for its machines would go
// there. Those that were told to speak http until this release are not asked to stay so.
func (c *Control) checkMoved(old records.Row[fleet.Worker], known bool,
	req fleet.JoinRequest) error {
	w := old.Val
	same := w.Address == req.Address &&
		strings.TrimPrefix(w.APIURL, "http://") == strings.TrimPrefix(req.APIURL, "https://") ||
		w.Address == req.Address && w.APIURL == req.APIURL
	if !known || same || c.obs.health(w.ID, c.now()) == plan.Down {
		return nil
	}
	return errs.New(errs.Conflict,
		"a worker %s at %s is alive, with its API at %s; one at %s with its API at %s can't have its name",
		w.ID, w.Address, w.APIURL, req.Address, req.APIURL).
		WithRemedy("give it another name, or stop the first and wait %s", c.cfg.Policy.WorkerDown)
}

// checkAlone refuses a worker at the address of another that lives: each would take away the
// other's routes on its host, and what is sent to the machines of one would reach the other.
func (c *Control) checkAlone(id fleet.WorkerID, at netip.Addr, now time.Time) error {
	for _, other := range c.records.Workers.All() {
		if other.Val.ID == id || other.Val.Address != at {
			continue
		}
		who, _ := c.records.Identities.Get(other.Val.ID)
		if who.Val.IsRevoked() || c.obs.health(other.Val.ID, now) == plan.Down {
			continue
		}
		return errs.New(errs.Conflict,
			"worker %s is alive at address %s; worker %s can't be there, too",
			other.Val.ID, at, id).
			WithRemedy("give each worker a host of its own, or another --address; or stop worker %s and wait %s",
				other.Val.ID, c.cfg.Policy.WorkerDown)
	}
	return nil
}

// checkBack has a worker that was down join anew if another is at its address by now: there it is
// told why it can't be.
func (c *Control) checkBack(w fleet.Worker, now time.Time) error {
	if c.obs.health(w.ID, now) != plan.Down {
		return nil
	}
	if err := c.checkAlone(w.ID, w.Address, now); err != nil {
		return errs.Wrap(errs.NotFound, err, "worker %s was down, and has to join again", w.ID)
	}
	return nil
}

// Report implements fleet.WorkerFeed. It keeps the report in memory only.
func (c *Control) Report(_ context.Context, r fleet.WorkerReport) error {
	if err := c.ready(); err != nil {
		return err
	}
	w, err := c.knownWorker(r.Worker)
	if err != nil {
		return err
	}
	now := c.now()
	if err := c.checkBack(w.Val, now); err != nil {
		return err
	}
	machines, changed := c.obs.take(r, now)
	if !changed {
		return nil
	}
	for _, id := range machines {
		c.fast.add(queueMachine + string(id))
		if _, known := c.records.Machines.Get(id); !known {
			c.log.Info("worker reports an unknown machine", "worker_id", r.Worker, "machine_id", id)
		}
	}
	if w, ok := c.records.Workers.Get(r.Worker); ok && w.Val.Drain != "" {
		c.fast.add(queueDrain + string(w.Val.Drain))
	}
	c.refreshFeed(r.Worker)
	c.broadcast()
	return nil
}

// Cordon implements fleet.Workers.
func (c *Control) Cordon(ctx context.Context, id fleet.WorkerID,
	reason string) (fleet.WorkerView, error) {
	return c.editWorker(ctx, id, func(w *fleet.Worker) error {
		w.Cordoned = true
		if reason != "" || w.CordonReason == "" {
			w.CordonReason = reason
		}
		return nil
	})
}

// Uncordon implements fleet.Workers.
func (c *Control) Uncordon(ctx context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	return c.editWorker(ctx, id, func(w *fleet.Worker) error {
		if w.Drain != "" {
			return errs.New(errs.Conflict, "worker %s is being drained by drain %s", id, w.Drain).
				WithRemedy("sluice drain cancel %s", w.Drain)
		}
		w.Cordoned, w.CordonReason, w.Drained = false, "", false
		return nil
	})
}

func (c *Control) editWorker(ctx context.Context, id fleet.WorkerID,
	edit func(*fleet.Worker) error) (fleet.WorkerView, error) {
	if err := c.ready(); err != nil {
		return fleet.WorkerView{}, err
	}
	err := c.try(ctx, func() error {
		w, err := c.knownWorker(id)
		if err != nil {
			return err
		}
		next := w.Val
		if err := edit(&next); err != nil {
			return err
		}
		if reflect.DeepEqual(next, w.Val) {
			return nil
		}
		t := c.records.Begin()
		records.Set(t, w, next)
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.WorkerView{}, err
	}
	return c.Worker(ctx, id)
}

// Workers implements fleet.Workers; ordered by id.
func (c *Control) Workers(context.Context) ([]fleet.WorkerView, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	now := c.now()
	var views []fleet.WorkerView
	for _, w := range c.records.Workers.All() {
		views = append(views, c.workerView(w.Val, now))
	}
	return views, nil
}

// Worker implements fleet.Workers.
func (c *Control) Worker(_ context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	if err := c.ready(); err != nil {
		return fleet.WorkerView{}, err
	}
	w, err := c.knownWorker(id)
	if err != nil {
		return fleet.WorkerView{}, err
	}
	return c.workerView(w.Val, c.now()), nil
}

// planWorker is a worker as the planner sees it.
func (c *Control) planWorker(w fleet.Worker, now time.Time) plan.Worker {
	a, _ := c.records.Allocations.Get(w.ID)
	p := plan.Worker{Worker: w, Health: c.obs.health(w.ID, now), Allocation: a.Val}
	report, _, current := c.obs.report(w.ID)
	p.Fresh = current
	p.ShutOut = c.isRevoked(w.ID)
	p.VMs = vmsOf(report)
	return p
}

// vmsOf returns the machines of which a worker reported a VM, in whatever phase.
func vmsOf(report *fleet.WorkerReport) []fleet.MachineID {
	if report == nil {
		return nil
	}
	var ids []fleet.MachineID
	for i := range report.VMs {
		if plan.HasVM(&report.VMs[i]) || report.VMs[i].Phase == fleet.PhasePreparing ||
			report.VMs[i].Phase == fleet.PhasePrepared {
			ids = append(ids, report.VMs[i].Machine)
		}
	}
	return ids
}

func (c *Control) workerView(w fleet.Worker, now time.Time) fleet.WorkerView {
	c.refreshFeed(w.ID)
	p := c.planWorker(w, now)
	report, contact, _ := c.obs.report(w.ID)
	v := fleet.WorkerView{Worker: w, Liveness: string(p.Health), LastSeen: contact.Last,
		Allocation: p.Allocation, Report: report, Machines: c.records.CountPlacedOn(w.ID)}
	if who, _ := c.records.Identities.Get(w.ID); who.Val.IsRevoked() {
		v.RevokedAt = who.Val.RevokedAt
	}
	empty := v.Machines == 0 && len(p.Allocation.Holders) == 0
	v.SafeToStop = empty &&
		(p.Health == plan.Down || p.Health == plan.Alive && p.Fresh && len(p.VMs) == 0)
	switch {
	case w.Drain != "":
		v.State = fleet.WorkerDraining
	case w.Drained:
		v.State = fleet.WorkerDrained
	case p.Health == plan.Down:
		v.State = fleet.WorkerDown
	case w.Cordoned:
		v.State = fleet.WorkerCordoned
	default:
		v.State = fleet.WorkerReady
	}
	return v
}
