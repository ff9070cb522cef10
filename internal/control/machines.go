package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// StartMachine implements fleet.Control. Starting a machine that runs changes nothing; one that has failed is
// started anew at once.
func (c *Control) StartMachine(ctx context.Context, ref string) (fleet.MachineView, error) {
	return c.edit(ctx, ref, func(m row[fleet.Machine]) error {
		if m.val.Desired == fleet.WantDestroyed {
			return errs.New(errs.Conflict, "machine %s is being destroyed", m.val.Name)
		}
		failed := m.val.State == fleet.MachineFailed && m.val.Owner == ""
		if m.val.Desired == fleet.WantStarted && !failed {
			return nil
		}
		c.retries.forget(m.val.ID)
		next := m.val
		next.Desired = fleet.WantStarted
		line := fleet.MachineEvent{State: fleet.MachineStarting, Event: eventStart, Source: sourceUser}
		t := c.begin()
		if m.val.Owner != "" || m.val.Placement != nil && !failed {
			t.machine(m, next) // whoever has it brings it on, or it is launched once its worker has released it
			if err := c.events(ctx, t, m.val.ID, line); err != nil {
				return err
			}
			return t.commit(ctx)
		}
		need := needOf(m.val, nil)
		need.Only = c.namedWorker(m.val)
		to, blocker := c.place(need)
		if blocker != nil {
			return c.exhausted(blocker, string(m.val.Name))
		}
		if err := c.launchOn(ctx, t, m, next, to); err != nil {
			return err
		}
		return t.commit(ctx)
	})
}

// StopMachine implements fleet.Control.
func (c *Control) StopMachine(ctx context.Context, ref string) (fleet.MachineView, error) {
	return c.edit(ctx, ref, func(m row[fleet.Machine]) error {
		if m.val.Desired == fleet.WantDestroyed {
			return errs.New(errs.Conflict, "machine %s is being destroyed", m.val.Name)
		}
		if m.val.Desired == fleet.WantStopped {
			return nil
		}
		t, next := c.begin(), m.val
		next.Desired = fleet.WantStopped
		if next.Owner == "" && next.Placement != nil {
			next.State, next.Reason = fleet.MachineStopping, ""
		}
		t.machine(m, next)
		if err := c.events(ctx, t, m.val.ID, fleet.MachineEvent{State: fleet.MachineStopping, Event: eventStop, Source: sourceUser}); err != nil {
			return err
		}
		return t.commit(ctx)
	})
}

// DestroyMachine implements fleet.Control. It returns once it is recorded; the machine is gone when its
// worker has let go of it and its disk is removed.
func (c *Control) DestroyMachine(ctx context.Context, ref string) error {
	_, err := c.edit(ctx, ref, func(m row[fleet.Machine]) error {
		if m.val.Desired == fleet.WantDestroyed {
			return nil
		}
		t, next := c.begin(), m.val
		next.Desired = fleet.WantDestroyed
		if next.Owner == "" {
			next.State, next.Reason = fleet.MachineDestroying, ""
		}
		t.machine(m, next)
		if err := c.events(ctx, t, m.val.ID, fleet.MachineEvent{State: fleet.MachineDestroying, Event: eventDestroy, Source: sourceUser}); err != nil {
			return err
		}
		return t.commit(ctx)
	})
	return err
}

// Migrate implements fleet.Control.
func (c *Control) Migrate(ctx context.Context, ref string, to fleet.WorkerID) (fleet.MoveView, error) {
	var mv fleet.Move
	_, err := c.edit(ctx, ref, func(m row[fleet.Machine]) error {
		if m.val.Owner != "" {
			return busyWith(m.val)
		}
		if m.val.Desired != fleet.WantStarted || m.val.Placement == nil || m.val.State == fleet.MachineStopping {
			return errs.New(errs.Conflict, "machine %s doesn't run: it is %s", m.val.Name, m.val.State).
				WithRemedy("it is placed when it starts: sluice machine start %s/%s", m.val.App, m.val.Name)
		}
		if m.val.Placement.Worker == to {
			return errs.New(errs.Conflict, "machine %s is on %s already", m.val.Name, to).
				WithRemedy("nothing is to be done; to move it elsewhere: sluice machine migrate %s/%s --to WORKER", m.val.App, m.val.Name)
		}
		need := needOf(m.val, map[fleet.WorkerID]string{m.val.Placement.Worker: "the machine is on it"})
		if need.Only = to; to != "" {
			if _, err := c.knownWorker(to); err != nil {
				return err
			}
		}
		target, blocker := c.place(need)
		if blocker != nil {
			return errs.New(refusalKind(plan.Refusals(c.view(nil), need), to), "machine %s can't move: %s", m.val.Name, blocker.Detail).WithRemedy("%s", blocker.Remedy)
		}
		var err error
		mv, err = c.startMove(ctx, m, fleet.Move{Reason: fleet.ReasonMigrate, To: target, Pinned: to != ""})
		return err
	})
	if err != nil {
		return fleet.MoveView{}, err
	}
	return c.moveView(mv), nil
}

// refusalKind is Conflict where the worker that was asked for doesn't take machines, else Exhausted.
func refusalKind(refusals []plan.Refusal, to fleet.WorkerID) errs.Kind {
	for _, r := range refusals {
		if r.Worker == to && r.Code != "cpu" && r.Code != "memory" {
			return errs.Conflict
		}
	}
	return errs.Exhausted
}

// edit finds a machine and changes it, again where somebody else changed it meanwhile.
func (c *Control) edit(ctx context.Context, ref string, change func(row[fleet.Machine]) error) (fleet.MachineView, error) {
	if err := c.ready(); err != nil {
		return fleet.MachineView{}, err
	}
	m, err := c.find(ref)
	if err != nil {
		return fleet.MachineView{}, err
	}
	id := m.val.ID
	err = c.try(ctx, func() error {
		m, err := c.find(string(id))
		if err != nil {
			return err
		}
		return change(m)
	})
	if err != nil {
		return fleet.MachineView{}, err
	}
	return c.Machine(ctx, string(id))
}
