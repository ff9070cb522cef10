package control

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// undoMove undoes a move whose source was never told anything: the reservation and the lock go back.
func (c *Control) undoMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], why *fleet.Blocker) error {
	t, next := c.begin(), r.val
	note := ""
	if why != nil {
		note = why.Detail
		if next.Reason == fleet.ReasonMigrate || why.Code == fleet.CodeNotReady {
			next.Error = why.Detail // a drain leaves the machine alone for a while
		}
	}
	c.step(&next, fleet.StepUndone, note)
	next.Blocker = why
	machine := m.val
	machine.Owner = ""
	t.machine(m, machine)
	if next.To != "" {
		t.release(next.To, m.val.ID)
	}
	t.unlock(next)
	t.move(r, next)
	return t.commit(ctx)
}

// putBack undoes a move after the source was told to stop: the machine goes back under a new generation. The
// source's share was kept for this. why is nil where a person cancelled.
func (c *Control) putBack(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput, why *fleet.Blocker) error {
	next := r.val
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
	w, ok := c.cache.worker(next.From)
	if !ok {
		return nil
	}
	t, machine := c.begin(), m.val
	machine.Generation++
	machine.Placement = c.placementOn(machine, w.val, machine.Generation, fleet.InstanceID(c.deps.IDs.ULID(c.now())))
	machine.State, machine.Reason = fleet.MachineMoving, ""
	t.machine(m, machine)
	t.hold(next.From, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources})
	t.move(r, next)
	return t.commit(ctx)
}

// endUndone ends an undone move: the machine is wholly on its source again, running or with a reason why not.
func (c *Control) endUndone(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput, why *fleet.Blocker) error {
	t, next := c.begin(), r.val
	machine := m.val
	machine.Owner, machine.State = "", fleet.MachineStarting
	if v := in.Source.VM; why == nil && v != nil && v.Generation == machine.Placement.Generation {
		machine.State = fleet.MachineStarted
	}
	if why != nil && next.Error == "" {
		next.Error = why.Detail
	}
	c.measurePause(&next)
	c.step(&next, fleet.StepUndone, "")
	t.machine(m, machine)
	if next.To != "" && next.To != next.From {
		t.release(next.To, m.val.ID)
	}
	t.unlock(next)
	t.move(r, next)
	if err := c.events(ctx, t, m.val.ID, moveEvents(next, machine)...); err != nil {
		return err
	}
	return t.commit(ctx)
}

// bury remembers that a lost worker may still have a VM of a machine whose record is about to go.
func (t *txn) bury(m fleet.Machine, on fleet.WorkerID) {
	old, _ := get(t.c.cache, t.c.cache.tombstones, keyTombstone(m.ID))
	t.put(keyTombstone(m.ID), old.rev, tombstone{Machine: m.ID, Worker: on, Generation: m.Generation})
}

// moveEvents tells a machine's history of a move that has ended: it was stopped on one worker and launched
// on another, or, where the move was undone, on the same. migrated=true is what users look for.
func moveEvents(mv fleet.Move, m fleet.Machine) []fleet.MachineEvent {
	to, migrated := m.Placement.Worker, m.Placement.Worker != mv.From
	info := map[string]string{
		"migrated": strconv.FormatBool(migrated), "from": string(mv.From), "to": string(to), "move": string(mv.ID), "reason": string(mv.Reason),
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
		lines = append(lines, fleet.MachineEvent{Time: at, State: fleet.MachineStopping, Event: eventStop, Source: sourceControl, Info: map[string]string{"reason": string(mv.Reason)}})
	}
	if at := mv.Reached(fleet.StepReleased); !at.IsZero() {
		exit := fleet.MachineEvent{Time: at, State: fleet.MachineStopped, Event: eventExit, Source: sourceWorker(mv.From)}
		if mv.Proof == fleet.ProofStorage { // nobody there said so
			why := mv.NoteOf(fleet.StepReleased)
			if why == "" {
				why = string(mv.From) + " says nothing of it"
			}
			exit.Source, exit.Info = sourceControl, map[string]string{"reason": why}
		}
		lines = append(lines, exit)
	}
	lines = append(lines, fleet.MachineEvent{Time: m.Placement.Since, State: fleet.MachineCreated, Event: eventLaunch, Source: sourceControl, Instance: m.Placement.Instance, Info: info})
	if m.State == fleet.MachineStarted {
		lines = append(lines, fleet.MachineEvent{State: fleet.MachineStarted, Event: eventStart, Source: sourceWorker(to), Instance: m.Placement.Instance})
	}
	return lines
}
