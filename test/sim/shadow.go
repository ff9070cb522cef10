package sim

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
)

// shadow is the state as it was last committed, and what must be true of it after each commit.
type shadow struct {
	w           *world
	machines    map[fleet.MachineID]fleet.Machine
	workers     map[fleet.WorkerID]fleet.Worker
	allocations map[fleet.WorkerID]fleet.Allocation
	moves       map[fleet.MoveID]fleet.Move
	drains      map[fleet.DrainID]fleet.Drain
	locks       map[string]fleet.MoveID
	tombstones  map[string]json.RawMessage
	usage       map[string]used
	placements  map[fleet.MachineID]fleet.Generation // newest generation that was ever a placement
}

// Tally counts what happened in a run, so that a test can see that things did happen.
type Tally struct {
	Commits, Moves, Undone, Failovers, Drained, Cancelled, Blocked, Servers, Writes int
}

func newShadow(w *world) *shadow {
	return &shadow{w: w, machines: map[fleet.MachineID]fleet.Machine{},
		workers:     map[fleet.WorkerID]fleet.Worker{},
		allocations: map[fleet.WorkerID]fleet.Allocation{}, moves: map[fleet.MoveID]fleet.Move{},
		drains: map[fleet.DrainID]fleet.Drain{},
		locks:  map[string]fleet.MoveID{}, tombstones: map[string]json.RawMessage{},
		usage:      map[string]used{},
		placements: map[fleet.MachineID]fleet.Generation{}}
}

// apply takes a committed transaction in and checks the invariants.
func (s *shadow) apply(by *server, txn state.Txn) {
	oldMachines, oldWorkers, oldDrains, oldMoves := maps.Clone(s.machines), maps.Clone(s.workers),
		maps.Clone(s.drains), maps.Clone(s.moves)
	for _, op := range txn.Then {
		s.take(op)
	}
	s.story(by, txn)
	for _, op := range txn.Then {
		id := fleet.MachineID(strings.TrimPrefix(op.Key, "fleet/machines/"))
		if old, ok := oldMachines[id]; ok && !op.Delete {
			s.checkChange(old, s.machines[id], oldWorkers)
		}
	}
	for id, mv := range s.moves {
		if mv.Step == fleet.StepStopping && oldMoves[id].Step != fleet.StepStopping {
			s.checkPrepared(mv)
		}
	}
	s.checkCapacity()
	s.checkLocks()
	s.checkOwners()
	s.checkUsage()
	for id, d := range s.drains {
		if d.State == fleet.DrainDone && oldDrains[id].State != fleet.DrainDone {
			s.checkDrained(d)
		}
	}
}

func (s *shadow) take(op state.Op) {
	parts := strings.SplitN(op.Key, "/", 3)
	id := parts[2]
	switch parts[1] {
	case "machines":
		record(s, s.machines, fleet.MachineID(id), op)
	case "workers":
		record(s, s.workers, fleet.WorkerID(id), op)
	case "allocations":
		record(s, s.allocations, fleet.WorkerID(id), op)
	case "moves":
		record(s, s.moves, fleet.MoveID(id), op)
	case "drains":
		record(s, s.drains, fleet.DrainID(id), op)
	case "netlocks":
		record(s, s.locks, id, op)
	case "tombstones":
		record(s, s.tombstones, id, op)
	case "usage":
		record(s, s.usage, id, op)
	}
}

func record[K comparable, V any](s *shadow, into map[K]V, id K, op state.Op) {
	if op.Delete {
		delete(into, id)
		return
	}
	var v V
	if err := json.Unmarshal(op.Value, &v); err != nil {
		s.w.violated("record %s can't be read: %v", op.Key, err)
	}
	into[id] = v
}

// checkChange: generations only grow (4), no hop onto a victim (6), the same machine (9).
func (s *shadow) checkChange(old, now fleet.Machine, workers map[fleet.WorkerID]fleet.Worker) {
	if now.Generation < old.Generation || now.Placement != nil &&
		now.Placement.Generation > now.Generation {
		s.w.violated("(4) machine %s: generation went from %d to %d, placement %+v", now.ID,
			old.Generation, now.Generation, now.Placement)
	}
	if now.Name != old.Name || now.App != old.App || now.Network != old.Network ||
		now.Disk != old.Disk || !reflect.DeepEqual(now.Config, old.Config) {
		s.w.violated("(9) machine %s became another: %+v was %+v", now.ID, now, old)
	}
	s.checkPatience(old, now)
	if now.Placement == nil || old.Placement != nil &&
		now.Placement.Generation == old.Placement.Generation {
		return
	}
	if newest := s.placements[now.ID]; now.Placement.Generation <= newest {
		s.w.violated("(4) machine %s: placed under generation %d after %d", now.ID,
			now.Placement.Generation, newest)
	}
	s.placements[now.ID] = now.Placement.Generation
	to := workers[now.Placement.Worker]
	if old.Placement != nil && old.Placement.Worker == to.ID {
		return
	}
	if from := workers[placedOn(old)]; old.Placement != nil && old.Placement.Named &&
		old.Owner == "" && now.Owner == "" &&
		from.Drain == "" && !from.Drained && s.w.opt.Calm { // none is ever down then
		s.w.violated("machine %s was asked for on %s, and is started on %s", now.ID, from.ID, to.ID)
	}
	if mv, moving := s.moves[ownerMove(now)]; moving && mv.From == to.ID {
		return // put back where it came from
	}
	if to.Cordoned || to.Drain != "" || to.Drained {
		s.w.violated("(6) machine %s was placed on %s, which is cordoned %v, draining %q", now.ID,
			to.ID, to.Cordoned, to.Drain)
	}
}

// placedOn is the worker that a machine is placed on; "" if it is on none.
func placedOn(m fleet.Machine) fleet.WorkerID {
	if m.Placement == nil {
		return ""
	}
	return m.Placement.Worker
}

// checkPatience: a start that gets further is not given up, however long it takes.
func (s *shadow) checkPatience(old, now fleet.Machine) {
	if now.State != fleet.MachineStopping || old.State == fleet.MachineStopping ||
		now.Desired != fleet.DesiredStarted || now.Placement == nil {
		return
	}
	for _, k := range s.w.workers {
		known := k.known[now.ID]
		if k.id != now.Placement.Worker || !k.reachable() || known == nil || known.life == nil ||
			known.life.vm == nil {
			continue
		}
		v := known.life.vm
		if v.alive && v.generation == now.Placement.Generation && v.phase == fleet.PhaseStarting &&
			!v.further.IsZero() {
			s.w.violated("machine %s was given up on %s (%s), where its start had come further "+
				"%s ago", now.ID, k.id, now.Reason, s.w.now.Sub(v.further))
		}
	}
}

// checkPrepared: (7) a machine is told to stop only when a VM has got ready for it on the target.
func (s *shadow) checkPrepared(mv fleet.Move) {
	for _, k := range s.w.workers {
		if k.id == mv.To && k.warmed[mv.Machine] < mv.ToGen {
			s.w.violated("(7) move %s stops its machine, and no VM was ready for generation %d "+
				"of it on %s", mv.ID, mv.ToGen, mv.To)
		}
	}
}

func ownerMove(m fleet.Machine) fleet.MoveID {
	id, _ := strings.CutPrefix(m.Owner, "move/")
	return fleet.MoveID(id)
}

// checkCapacity: (7) nobody holds more than a worker has, and who is placed holds.
func (s *shadow) checkCapacity() {
	for id, a := range s.allocations {
		if w := s.workers[id]; !w.Capacity.Fits(a.Used()) {
			s.w.violated("(7) worker %s has %+v, and %+v is held", id, w.Capacity, a.Used())
		}
	}
	for id, m := range s.machines {
		if m.Placement == nil {
			continue
		}
		if _, holds := s.allocations[m.Placement.Worker].Holders[id]; !holds {
			s.w.violated("(7) machine %s is on %s and holds nothing there", id, m.Placement.Worker)
		}
	}
}

// standing says that a move has stopped its machine and its network may not move another.
func standing(mv fleet.Move) bool {
	switch mv.Step {
	case fleet.StepStopping, fleet.StepReleased, fleet.StepCommitted, fleet.StepAttached,
		fleet.StepStarted, fleet.StepHealthy, fleet.StepUndoing:
		return true
	}
	return false
}

// checkLocks: (5) at most k of a network move, each holds a slot; (7) with its target reserved.
func (s *shadow) checkLocks() {
	moving := map[fleet.NetworkName]int{}
	held := map[fleet.MoveID]bool{}
	for key, id := range s.locks {
		mv, ok := s.moves[id]
		if !ok || mv.Step.Final() || mv.Step == fleet.StepUnlocked {
			s.w.violated("(5) lock %s is held by move %s, which is %s", key, id, mv.Step)
		}
		held[id] = true
	}
	for id, mv := range s.moves {
		if !standing(mv) {
			continue
		}
		moving[mv.Network]++
		if !held[id] {
			s.w.violated("(5) move %s is %s without its network's lock", id, mv.Step)
		}
		if share, ok := s.allocations[mv.To].Holders[mv.Machine]; !ok || share.Move != id &&
			mv.Step != fleet.StepUndoing {
			s.w.violated("(7) move %s is %s and holds nothing on %s", id, mv.Step, mv.To)
		}
	}
	for n, k := range moving {
		if k > movesPerNetwork {
			s.w.violated("(5) %d machines of network %s move at once", k, n)
		}
	}
}

// checkOwners: a machine is owned by a move that goes on, and each move that goes on owns its
// machine.
func (s *shadow) checkOwners() {
	for id, m := range s.machines {
		if mv, ok := s.moves[ownerMove(m)]; strings.HasPrefix(m.Owner, "move/") &&
			(!ok || mv.Step.Final() || mv.Machine != id) {
			s.w.violated("machine %s is owned by %s, which is %s", id, m.Owner, mv.Step)
		}
	}
	for id, mv := range s.moves {
		if m := s.machines[mv.Machine]; !mv.Step.Final() && mv.Step != fleet.StepUnlocked &&
			m.Owner != "move/"+string(id) {
			s.w.violated("move %s is %s and doesn't own its machine: %q does", id, mv.Step, m.Owner)
		}
	}
}

// checkDrained: (8) drained is the truth.
func (s *shadow) checkDrained(d fleet.Drain) {
	for _, id := range d.Workers {
		if n := len(s.allocations[id].Holders); n > 0 {
			s.w.violated("(8) %s is drained and %d hold capacity on it", id, n)
		}
		for _, m := range s.machines {
			if m.Placement != nil && m.Placement.Worker == id {
				s.w.violated("(8) %s is drained and machine %s is placed on it", id, m.ID)
			}
		}
		i := slices.IndexFunc(s.w.workers, func(k *worker) bool { return k.id == id })
		if k := s.w.workers[i]; k.reachable() && s.w.opt.Calm && len(k.vms()) > 0 {
			s.w.violated("(8) %s is drained and has VMs of %v", id, k.vms())
		}
	}
}

// story notes what a commit did, for the reader of a failure.
func (s *shadow) story(by *server, txn state.Txn) {
	var parts []string
	for _, op := range txn.Then {
		dir, id, _ := strings.Cut(strings.TrimPrefix(op.Key, "fleet/"), "/")
		switch dir {
		case "machines":
			m, ok := s.machines[fleet.MachineID(id)]
			if !ok {
				parts = append(parts, id+" gone")
				continue
			}
			at := "nowhere"
			if m.Placement != nil {
				at = fmt.Sprintf("%s@%d", m.Placement.Worker, m.Placement.Generation)
			}
			parts = append(parts,
				fmt.Sprintf("%s want=%s %s %s gen=%d owner=%s", id, m.Desired, m.State, at,
					m.Generation, m.Owner))
		case "moves":
			mv := s.moves[fleet.MoveID(id)]
			parts = append(parts,
				fmt.Sprintf("move %s %s→%s %s cancel=%v err=%q", id, mv.From, mv.To, mv.Step,
					mv.Cancel, mv.Error))
		case "drains":
			d := s.drains[fleet.DrainID(id)]
			parts = append(parts,
				fmt.Sprintf("drain %s %v %s %d blockers", id, d.Workers, d.State, len(d.Blockers)))
		case "netlocks":
			parts = append(parts, fmt.Sprintf("lock %s=%s", id, s.locks[id]))
		}
	}
	s.w.logf("%s: %s", by.name, strings.Join(parts, "; "))
}
