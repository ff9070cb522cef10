package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// StartMachine implements fleet.Machines. Starting a machine that runs changes nothing; one that
// has failed is started anew at once.
func (c *Control) StartMachine(ctx context.Context, ref string) (fleet.MachineView, error) {
	return c.edit(ctx, ref, func(m records.Row[fleet.Machine]) error {
		if m.Val.Desired == fleet.DesiredDestroyed {
			return errs.New(errs.Conflict, "machine %s is being destroyed", m.Val.Name)
		}
		failed := m.Val.State == fleet.MachineFailed && m.Val.Owner == ""
		if m.Val.Desired == fleet.DesiredStarted && !failed {
			return nil
		}
		c.retries.forget(m.Val.ID)
		next := m.Val
		next.Desired = fleet.DesiredStarted
		line := fleet.MachineEvent{State: fleet.MachineStarting, Event: eventStart,
			Source: sourceUser}
		t := c.records.Begin()
		if m.Val.Owner != "" || m.Val.Placement != nil && !failed {
			// whoever has it brings it on, or it is launched once its worker has released it
			t.SetMachine(m, next)
			if err := c.withinQuota(t); err != nil {
				return err
			}
			if err := c.events(ctx, t, m.Val.ID, line); err != nil {
				return err
			}
			return t.Commit(ctx)
		}
		need := plan.NeedOf(m.Val, nil)
		need.Only = c.namedWorker(m.Val)
		to, blocker := c.place(need)
		if blocker != nil {
			return c.exhausted(blocker, string(m.Val.Name))
		}
		if err := c.launchOn(ctx, t, m, next, to); err != nil {
			return err
		}
		if err := c.withinQuota(t); err != nil {
			return err
		}
		return t.Commit(ctx)
	})
}

// StopMachine implements fleet.Machines.
func (c *Control) StopMachine(ctx context.Context, ref string) (fleet.MachineView, error) {
	return c.edit(ctx, ref, func(m records.Row[fleet.Machine]) error {
		if m.Val.Desired == fleet.DesiredDestroyed {
			return errs.New(errs.Conflict, "machine %s is being destroyed", m.Val.Name)
		}
		if m.Val.Desired == fleet.DesiredStopped {
			return nil
		}
		t, next := c.records.Begin(), m.Val
		next.Desired = fleet.DesiredStopped
		if next.Owner == "" && next.Placement != nil {
			next.State, next.Reason = fleet.MachineStopping, ""
		}
		t.SetMachine(m, next)
		if err := c.events(ctx, t, m.Val.ID,
			fleet.MachineEvent{State: fleet.MachineStopping, Event: eventStop,
				Source: sourceUser}); err != nil {
			return err
		}
		return t.Commit(ctx)
	})
}

// DestroyMachine implements fleet.Machines. It returns once it is recorded; the machine is gone
// when its worker has let go of it and its disk is removed.
func (c *Control) DestroyMachine(ctx context.Context, ref string) error {
	_, err := c.edit(ctx, ref, func(m records.Row[fleet.Machine]) error {
		if m.Val.Desired == fleet.DesiredDestroyed {
			return nil
		}
		t, next := c.records.Begin(), m.Val
		next.Desired = fleet.DesiredDestroyed
		if next.Owner == "" {
			next.State, next.Reason = fleet.MachineDestroying, ""
		}
		t.SetMachine(m, next)
		if err := c.events(ctx, t, m.Val.ID,
			fleet.MachineEvent{State: fleet.MachineDestroying, Event: eventDestroy,
				Source: sourceUser}); err != nil {
			return err
		}
		return t.Commit(ctx)
	})
	return err
}

// Migrate implements fleet.Moves.
func (c *Control) Migrate(ctx context.Context, ref string,
	to fleet.WorkerID) (fleet.MoveView, error) {
	var mv fleet.Move
	_, err := c.edit(ctx, ref, func(m records.Row[fleet.Machine]) error {
		if m.Val.Owner != "" {
			return busyWith(m.Val)
		}
		if m.Val.Desired != fleet.DesiredStarted || m.Val.Placement == nil ||
			m.Val.State == fleet.MachineStopping {
			return errs.New(errs.Conflict, "machine %s doesn't run: it is %s", m.Val.Name,
				m.Val.State).
				WithRemedy("it is placed when it starts: sluice machine start %s/%s", m.Val.App,
					m.Val.Name)
		}
		if m.Val.Placement.Worker == to {
			return errs.New(errs.Conflict, "machine %s is on %s already", m.Val.Name, to).
				WithRemedy("nothing is to be done; to move it elsewhere: sluice machine migrate "+
					"%s/%s --to WORKER", m.Val.App, m.Val.Name)
		}
		need := plan.NeedOf(m.Val,
			map[fleet.WorkerID]string{m.Val.Placement.Worker: "the machine is on it"})
		if need.Only = to; to != "" {
			if _, err := c.knownWorker(to); err != nil {
				return err
			}
		}
		target, blocker := c.place(need)
		if blocker != nil {
			var refusals []plan.Refusal
			c.plan(func(v plan.View) { refusals = plan.Refusals(v, need) })
			return errs.New(refusalKind(refusals, to),
				"machine %s can't move: %s", m.Val.Name, blocker.Detail).
				WithRemedy("%s", blocker.Remedy)
		}
		var err error
		mv, err = c.startMove(ctx, m,
			fleet.Move{Reason: fleet.ReasonMigrate, To: target, Pinned: to != ""})
		return err
	})
	if err != nil {
		return fleet.MoveView{}, err
	}
	return c.moveView(mv), nil
}

// refusalKind is Conflict where the worker that was asked for doesn't take machines, else
// Exhausted.
func refusalKind(refusals []plan.Refusal, to fleet.WorkerID) errs.Kind {
	for _, r := range refusals {
		if r.Worker == to && r.Code != "cpu" && r.Code != "memory" {
			return errs.Conflict
		}
	}
	return errs.Exhausted
}

// edit finds a machine and changes it, again where somebody else changed it meanwhile.
func (c *Control) edit(ctx context.Context, ref string,
	change func(records.Row[fleet.Machine]) error) (fleet.MachineView, error) {
	if err := c.ready(); err != nil {
		return fleet.MachineView{}, err
	}
	m, err := c.find(ref)
	if err != nil {
		return fleet.MachineView{}, err
	}
	id := m.Val.ID
	err = c.tryIn(ctx, m.Val.Network, func() error {
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
