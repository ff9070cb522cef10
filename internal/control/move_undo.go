package control

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// undoMove undoes a move whose source was never told anything: the reservation and the lock go
// back.
func (c *Control) undoMove(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], why *fleet.Blocker) error {
	t, next := c.records.Begin(), r.Val
	note := ""
	if why != nil {
		note = why.Detail
		if next.Reason == fleet.ReasonMigrate || why.Code == fleet.CodeNotReady {
			next.Error = why.Detail // a drain leaves the machine alone for a while
		}
	}
	c.step(&next, fleet.StepUndone, note)
	next.Blocker = why
	machine := m.Val
	machine.Owner = ""
	t.SetMachine(m, machine)
	if next.To != "" {
		t.Release(next.To, m.Val.ID)
	}
	t.Unlock(next)
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// putBack undoes a move after the source was told to stop: the machine goes back under a new
// generation. The source's share was kept for this. why is nil where a person cancelled.
func (c *Control) putBack(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput, why *fleet.Blocker) error {
	next := r.Val
	if next.Reached(fleet.StepReleased).IsZero() {
		c.noteReleased(&next, in)
	}
	note := "cancelled"
	if why != nil {
		note = why.Detail
		if why.Code == fleet.CodeStartFailed || next.Reason == fleet.ReasonMigrate {
			next.Error = why.Detail // a drain leaves the machine alone for a while
		}
	}
	c.step(&next, fleet.StepUndoing, note)
	w, ok := c.records.Workers.Get(next.From)
	if !ok {
		return nil
	}
	t, machine := c.records.Begin(), m.Val
	machine.Generation++
	machine.Placement = c.placementOn(machine, w.Val, machine.Generation,
		fleet.InstanceID(c.deps.IDs.ULID(c.now())))
	machine.State, machine.Reason = fleet.MachineMoving, ""
	t.SetMachine(m, machine)
	t.Hold(next.From, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources})
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// endUndone ends an undone move: the machine is wholly on its source again, running or with a
// reason why not.
func (c *Control) endUndone(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput, why *fleet.Blocker) error {
	t, next := c.records.Begin(), r.Val
	machine := m.Val
	machine.Owner, machine.State = "", fleet.MachineStarting
	if v := in.Source.VM; why == nil && v != nil && v.Generation == machine.Placement.Generation {
		machine.State = fleet.MachineStarted
	}
	if why != nil && next.Error == "" {
		next.Error = why.Detail
	}
	c.measurePause(&next)
	c.step(&next, fleet.StepUndone, "")
	t.SetMachine(m, machine)
	if next.To != "" && next.To != next.From {
		t.Release(next.To, m.Val.ID)
	}
	t.Unlock(next)
	t.SetMove(r, next)
	if err := c.events(ctx, t, m.Val.ID, moveEvents(next, machine)...); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// moveEvents tells a machine's history of a move that has ended: it was stopped on one worker and
// launched on another, or, where the move was undone, on the same. Users wait for migrated=true.
func moveEvents(mv fleet.Move, m fleet.Machine) []fleet.MachineEvent {
	to, migrated := m.Placement.Worker, m.Placement.Worker != mv.From
	info := map[string]string{
		"migrated": strconv.FormatBool(migrated), "from": string(mv.From), "to": string(to),
		"move": string(mv.ID), "reason": string(mv.Reason),
		"proof": string(mv.Proof), "address": m.Placement.Address.String(),
	}
	if mv.PauseMS > 0 {
		info["pause_ms"] = fmt.Sprintf("%.1f", mv.PauseMS)
	}
	if mv.Error != "" {
		info["error"] = mv.Error
	}
	var lines []fleet.MachineEvent
	if at := mv.Reached(fleet.StepStopping); !at.IsZero() {
		lines = append(lines,
			fleet.MachineEvent{Time: at, State: fleet.MachineStopping, Event: eventStop,
				Source: sourceControl, Info: map[string]string{"reason": string(mv.Reason)}})
	}
	if at := mv.Reached(fleet.StepReleased); !at.IsZero() {
		exit := fleet.MachineEvent{Time: at, State: fleet.MachineStopped, Event: eventExit,
			Source: sourceWorker(mv.From)}
		if mv.Proof == fleet.ProofStorage { // nobody there said so
			why := mv.NoteOf(fleet.StepReleased)
			if why == "" {
				why = string(mv.From) + " says nothing of it"
			}
			exit.Source, exit.Info = sourceControl, map[string]string{"reason": why}
		}
		lines = append(lines, exit)
	}
	lines = append(lines, fleet.MachineEvent{Time: m.Placement.Since, State: fleet.MachineCreated,
		Event: eventLaunch, Source: sourceControl, Instance: m.Placement.Instance, Info: info})
	if m.State == fleet.MachineStarted {
		lines = append(lines,
			fleet.MachineEvent{State: fleet.MachineStarted, Event: eventStart,
				Source: sourceWorker(to), Instance: m.Placement.Instance})
	}
	return lines
}
