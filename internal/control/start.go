package control

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Owners of machines.
const (
	ownerCreate = "create/"
	ownerMove   = "move/"
)

func moveOwner(id fleet.MoveID) string { return ownerMove + string(id) }

// reconcileMachine takes a machine's moves further and then, unless one of them owns it, itself.
func (c *Control) reconcileMachine(ctx context.Context, id fleet.MachineID) error {
	for _, mv := range c.records.ActiveMoves(id) {
		if err := c.reconcileMove(ctx, mv); err != nil {
			return err
		}
	}
	m, ok := c.records.Machines.Get(id)
	switch {
	case !ok:
		return nil
	case strings.HasPrefix(m.Val.Owner, ownerCreate):
		c.slow.add(queueDisk + string(id))
		return nil
	case m.Val.Owner != "":
		return nil
	case m.Val.Desired == fleet.DesiredStarted:
		return c.reconcileStarted(ctx, m)
	case m.Val.Placement != nil:
		return c.reconcileLeaving(ctx, m)
	case m.Val.Desired == fleet.DesiredDestroyed:
		c.slow.add(queueDisk + string(id))
		return nil
	case m.Val.State != fleet.MachineStopped && m.Val.State != fleet.MachineCreated:
		return c.setState(ctx, m, fleet.MachineStopped, "", nil)
	}
	return nil
}

// sightOf returns what is known of a machine on the worker of its placement.
func (c *Control) sightOf(m fleet.Machine) plan.Sight {
	c.refreshFeed(m.Placement.Worker)
	return c.obs.sight(m.Placement.Worker, m.ID, c.now())
}

// reconcileLeaving takes a machine that is to be stopped or destroyed off its worker.
func (c *Control) reconcileLeaving(ctx context.Context, m records.Row[fleet.Machine]) error {
	s := c.sightOf(m.Val)
	next := m.Val
	next.State, next.Reason = fleet.MachineStopping, ""
	if m.Val.Desired == fleet.DesiredDestroyed {
		next.State = fleet.MachineDestroying
	}
	_, gone := s.Left(m.Val.Placement.Generation, c.cfg.Policy, c.now())
	lost := s.Health == plan.Down
	if !gone && lost {
		next.Reason = string(s.Worker) + " is down; it can't say that the machine has stopped"
	}
	w, _ := c.records.Workers.Get(s.Worker)
	if !gone && !(lost && (w.Val.Drain != "" || m.Val.Desired == fleet.DesiredDestroyed)) {
		if next.State == m.Val.State && next.Reason == m.Val.Reason {
			return nil
		}
		return c.setState(ctx, m, next.State, next.Reason, nil)
	}
	t := c.records.Begin()
	next.Placement = nil
	if next.State == fleet.MachineStopping {
		next.State = fleet.MachineStopped
	}
	ev, reason := exitEvent(m.Val, s, next.State)
	if reason != "" {
		next.Reason = reason
	}
	t.SetMachine(m, next)
	t.Release(s.Worker, m.Val.ID)
	if lost && m.Val.Desired == fleet.DesiredDestroyed {
		t.RememberLost(m.Val, s.Worker)
	}
	if lost {
		ev.Source, ev.Info = sourceControl, map[string]string{"worker_down": string(s.Worker)}
	}
	if err := c.events(ctx, t, m.Val.ID, ev); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// reconcileStarted brings a machine up that should run and that nobody owns.
func (c *Control) reconcileStarted(ctx context.Context, m records.Row[fleet.Machine]) error {
	if m.Val.Placement == nil {
		return c.launch(ctx, m, nil)
	}
	s := c.sightOf(m.Val)
	gen := m.Val.Placement.Generation
	if s.Health == plan.Down {
		return c.reconcileLost(ctx, m, s)
	}
	if m.Val.State == fleet.MachineStopping {
		if _, gone := s.Left(gen, c.cfg.Policy, c.now()); !gone {
			return nil
		}
		var exclude map[fleet.WorkerID]string
		// its start there was given up: where another worker takes it, it shall
		if m.Val.Reason != "" {
			exclude = map[fleet.WorkerID]string{s.Worker: m.Val.Reason}
		}
		return c.launch(ctx, m, exclude)
	}
	if s.VM == nil || s.VM.Generation != gen {
		return c.reconcileStarting(ctx, m, s)
	}
	switch s.VM.Phase {
	case fleet.PhaseRunning, fleet.PhaseHealthy:
		if m.Val.State == fleet.MachineStarted {
			for _, y := range countedBy(s.VM) {
				if news, err := c.noteCounted(ctx, m, s, y); news || err != nil {
					return err
				}
			}
			if err := c.noteServices(ctx, m, s); err != nil {
				return err
			}
			return c.noteHeld(ctx, m, s)
		}
		return c.setState(ctx, m, fleet.MachineStarted, "",
			&fleet.MachineEvent{Event: eventStart, Source: sourceWorker(s.Worker)})
	case fleet.PhaseFailed, fleet.PhaseFenced:
		return c.reconcileFailed(ctx, m, s)
	case fleet.PhaseReleased:
		if s.Current {
			return c.launch(ctx, m, nil)
		}
		return nil
	case fleet.PhaseEmpty, fleet.PhasePreparing, fleet.PhasePrepared, fleet.PhaseAttaching,
		fleet.PhaseStarting, fleet.PhaseStopping:
	}
	return c.reconcileStarting(ctx, m, s)
}

// reasonPaused is why a started machine does nothing.
const reasonPaused = "paused: the store of its disk has stalled"

// reasonSilent, with a time after it, is why nobody knows what a started machine does.
const reasonSilent = "platformd of the VM has been silent since "

// held returns why a started machine isn't what it should be, and the event by which that is told;
// "" if it is.
func held(v *fleet.VMReport) (reason string, ev fleet.MachineEvent) {
	switch {
	case !v.SilentSince.IsZero(): // what its platform said last may not be so any more
		since := v.SilentSince.UTC().Format(time.RFC3339)
		return reasonSilent + since,
			fleet.MachineEvent{Event: eventSilent, Info: map[string]string{"since": since}}
	case v.Stall != nil && v.Stall.Paused:
		return reasonPaused, fleet.MachineEvent{Event: eventStall,
			Info: map[string]string{"since": v.Stall.Since.UTC().Format(time.RFC3339),
				"operation": v.Stall.Operation, "reason": v.Stall.Reason}}
	}
	return "", fleet.MachineEvent{}
}

// noteHeld notes that a started machine has been paused for its store, or that its platform is
// silent, or that it goes on.
func (c *Control) noteHeld(ctx context.Context, m records.Row[fleet.Machine], s plan.Sight) error {
	reason, ev := held(s.VM)
	if reason == m.Val.Reason {
		return nil
	}
	switch {
	case reason != "":
	case m.Val.Reason == reasonPaused:
		ev.Event = eventResume
	case strings.HasPrefix(m.Val.Reason, reasonSilent):
		ev.Event = eventAnswers
	default:
		return nil
	}
	ev.Source = sourceWorker(s.Worker)
	return c.setState(ctx, m, fleet.MachineStarted, reason, &ev)
}

// reconcileStarting waits for a machine whose worker hasn't said yet that it runs, or gives the
// start up.
func (c *Control) reconcileStarting(ctx context.Context, m records.Row[fleet.Machine],
	s plan.Sight) error {
	if m.Val.State == fleet.MachineStarted || m.Val.State == fleet.MachineLost && !s.Reported {
		return nil // it was up; its worker brings it up again by itself, or says why not
	}
	now, p := c.now(), m.Val.Placement
	stuck := c.obs.stuckOn(s.Worker, m.Val.ID, p.Generation, now)
	need := plan.NeedOf(m.Val, map[fleet.WorkerID]string{s.Worker: "it is slow there"})
	need.Only = c.namedWorker(m.Val)
	start := plan.Start{On: s, Waited: now.Sub(p.Since), Stuck: stuck,
		CalmElsewhere: s.Pressure.High() && c.calmElsewhere(need)}
	pace := start.Judge(c.cfg.Policy)
	if s.Health == plan.Alive && pace == plan.PaceStuck {
		// Have it released first, so that it doesn't come up there while it comes up elsewhere.
		reason := string(s.Worker) + " has not brought it up in time"
		if c.namedWorker(m.Val) != "" {
			reason += "; it is started there anew, because this worker was asked for"
		}
		return c.setState(ctx, m, fleet.MachineStopping, reason,
			&fleet.MachineEvent{Event: eventStop, Source: sourceControl,
				Info: map[string]string{"reason": reason}})
	}
	reason := ""
	if pace != plan.PaceFine {
		reason = start.Slow()
	}
	if m.Val.State != fleet.MachineStarting || m.Val.Reason != reason {
		return c.setState(ctx, m, fleet.MachineStarting, reason, nil)
	}
	return nil
}

// reconcileLost notes that a machine's worker is down, and why failover doesn't start it elsewhere
// yet.
func (c *Control) reconcileLost(ctx context.Context, m records.Row[fleet.Machine],
	s plan.Sight) error {
	reason := string(s.Worker) + " is down"
	c.mu.Lock()
	if b, ok := c.waiting[m.Val.ID]; ok {
		reason += "; not started elsewhere: " + b.Detail
	}
	c.mu.Unlock()
	if m.Val.State == fleet.MachineLost && m.Val.Reason == reason {
		return nil
	}
	var ev *fleet.MachineEvent
	if m.Val.State != fleet.MachineLost {
		ev = &fleet.MachineEvent{Event: eventLost, Source: sourceControl,
			Info: map[string]string{"worker": string(s.Worker)}}
	}
	return c.setState(ctx, m, fleet.MachineLost, reason, ev)
}

// reconcileFailed starts a machine again that its worker couldn't bring up, or whose VM has ended.
func (c *Control) reconcileFailed(ctx context.Context, m records.Row[fleet.Machine],
	s plan.Sight) error {
	gen := m.Val.Placement.Generation
	w, _ := c.records.Workers.Get(s.Worker)
	leaving := w.Val.Drain != ""
	next := c.retries.after(m.Val.ID, gen, c.now())
	switch {
	case m.Val.State != fleet.MachineFailed:
		return c.setState(ctx, m, fleet.MachineFailed, plan.Failure(s.VM),
			&fleet.MachineEvent{Event: eventExit, Source: sourceWorker(s.Worker),
				Info: map[string]string{"error": s.VM.Error, "kind": s.VM.ErrorKind}})
	case permanent(s.VM) && leaving && plan.HasVM(s.VM):
		return c.setState(ctx, m, fleet.MachineStopping, m.Val.Reason, nil)
	case permanent(s.VM) && !leaving:
		return nil
	case leaving || !c.now().Before(next):
		return c.launch(ctx, m, nil)
	}
	return nil
}

// permanent reports whether starting it again would change nothing: a person has to.
func permanent(v *fleet.VMReport) bool {
	switch errs.Kind(v.ErrorKind) {
	case errs.Invalid, errs.NotFound, errs.Corrupt, errs.Unsupported, errs.Denied, errs.Fenced:
		return true
	}
	return v.Phase == fleet.PhaseFenced
}

// launch places a machine anew: on the best worker, under a new generation. Where there is none, a
// machine that has a worker which takes it back stays there; else its record says why it waits.
func (c *Control) launch(ctx context.Context, m records.Row[fleet.Machine],
	exclude map[fleet.WorkerID]string) error {
	need := plan.NeedOf(m.Val, exclude)
	need.Only = c.namedWorker(m.Val)
	to, blocker := c.placeCalm(need)
	if blocker != nil && m.Val.Placement != nil {
		if w, ok := c.records.Workers.Get(m.Val.Placement.Worker); ok && w.Val.Drain == "" &&
			!w.Val.Drained && c.obs.health(w.Val.ID, c.now()) == plan.Alive {
			to, blocker = w.Val.ID, nil
		}
	}
	if blocker != nil {
		reason := "no worker has room: " + blocker.Detail
		if need.Only != "" {
			reason = string(need.Only) + " was asked for, and doesn't take it: " + blocker.Detail
		}
		if m.Val.State == fleet.MachineFailed && m.Val.Reason == reason {
			return nil
		}
		return c.setState(ctx, m, fleet.MachineFailed, reason, nil)
	}
	t := c.records.Begin()
	if err := c.launchOn(ctx, t, m, m.Val, to); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// launchOn adds to t what places a machine on a worker under a new generation. next is the
// machine's record as it should be otherwise.
func (c *Control) launchOn(ctx context.Context, t *records.Txn, m records.Row[fleet.Machine],
	next fleet.Machine, to fleet.WorkerID) error {
	w, _ := c.records.Workers.Get(to)
	t.ExpectWorker(to)
	if m.Val.Placement != nil && m.Val.Placement.Worker != to {
		t.Release(m.Val.Placement.Worker, m.Val.ID)
	}
	t.Hold(to, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources})
	next.Generation = m.Val.Generation + 1
	next.Placement = c.placementOn(next, w.Val, next.Generation,
		fleet.InstanceID(c.deps.IDs.ULID(c.now())))
	next.Placement.Named = c.namedWorker(m.Val) == to
	next.State, next.Reason = fleet.MachineStarting, ""
	t.SetMachine(m, next)
	return c.events(ctx, t, m.Val.ID,
		fleet.MachineEvent{State: fleet.MachineStarting, Event: eventLaunch, Source: sourceControl,
			Instance: next.Placement.Instance, Info: map[string]string{"worker": string(to)}})
}

func (c *Control) placementOn(m fleet.Machine, w fleet.Worker, gen fleet.Generation,
	instance fleet.InstanceID) *fleet.Placement {
	return &fleet.Placement{Worker: w.ID, Generation: gen, Instance: instance,
		Address: fleet.PrivateAddress(m.NetworkID, w.Number, m.Number), Since: c.now()}
}

// setState writes a machine's state, with an event if there is one to tell.
func (c *Control) setState(ctx context.Context, m records.Row[fleet.Machine],
	state fleet.MachineState, reason string, ev *fleet.MachineEvent) error {
	t := c.records.Begin()
	next := m.Val
	next.State, next.Reason = state, reason
	if state == fleet.MachineStarted && next.Placement != nil && next.Placement.Named {
		// it has come up where it was asked for; from here on it is as any other
		up := *next.Placement
		up.Named, next.Placement = false, &up
	}
	t.SetMachine(m, next)
	if ev != nil {
		line := *ev
		line.State, line.Info = state, maps.Clone(ev.Info)
		if m.Val.Placement != nil {
			line.Instance = m.Val.Placement.Instance
		}
		if err := c.events(ctx, t, m.Val.ID, line); err != nil {
			return err
		}
	}
	return t.Commit(ctx)
}

// appendStep returns steps with one more; the record's own list is shared and stays as it is.
func appendStep(steps []fleet.StepRecord, more ...fleet.StepRecord) []fleet.StepRecord {
	return append(slices.Clip(slices.Clone(steps)), more...)
}
