package plan_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// moveScenario is one move, of machine m1 from w1 to w2, and what is known of it.
type moveScenario struct {
	now   time.Time
	input plan.MoveInput
	offer fleet.WorkerID // of placement, for another target; "": none
}

func newMoveScenario() *moveScenario {
	s := &moveScenario{now: time.Unix(1000, 0).UTC()}
	s.reset()
	return s
}

// reset begins a move of a machine that runs, from one worker that is well to another one.
func (s *moveScenario) reset() {
	s.input, s.offer = plan.MoveInput{TargetOpen: true, LockFree: true}, "w3"
	s.input.Move = fleet.Move{ID: "mv", Machine: "m1", Network: "net", From: "w1", To: "w2",
		FromGen: 1, ToGen: 2, Attempt: 1,
		Reason: fleet.ReasonDrain}
	s.input.Machine = fleet.Machine{ID: "m1", Desired: fleet.DesiredStarted,
		State:     fleet.MachineStarted,
		Placement: &fleet.Placement{Worker: "w1", Generation: 1, Since: s.now}, UpdatedAt: s.now}
	s.input.Source = plan.Sight{Worker: "w1", Health: plan.Alive, Reported: true, Current: true,
		Since: s.now}
	s.input.Target = plan.Sight{Worker: "w2", Health: plan.Alive, Reported: true, Current: true,
		Since: s.now}
	s.step(fleet.StepReserved)
}

// step takes the move to a step, by all steps before it that it hasn't reached, now.
func (s *moveScenario) step(to fleet.Step) {
	mv, last := &s.input.Move, to
	if !to.Before(fleet.StepDone) && to != fleet.StepDone {
		last = fleet.StepStopping // a move that is undone has come this far
	}
	for _, step := range fleet.Steps() {
		if !mv.Reached(step).IsZero() || step != last && step != to && !step.Before(last) {
			continue
		}
		mv.Steps = append(mv.Steps, fleet.StepRecord{Step: step, At: s.now})
		if step == fleet.StepCommitted {
			s.place(mv.To, mv.ToGen)
		}
	}
	mv.Step = to
}

func (s *moveScenario) place(on fleet.WorkerID, gen fleet.Generation) {
	s.input.Machine.Placement = &fleet.Placement{Worker: on, Generation: gen, Since: s.now}
	s.input.Machine.State = fleet.MachineMoving
}

func (s *moveScenario) run(t *testing.T, d *datadriven.TestData) string {
	if d.Cmd != "decide" && d.Cmd != "move" {
		d.Fatalf(t, "unknown directive")
	}
	if d.Cmd == "move" {
		s.reset()
		s.moveOptions(d)
	}
	for line := range strings.Lines(d.Input) {
		if err := s.change(line); err != nil {
			d.Fatalf(t, "%s: %v", line, err)
		}
	}
	act, why := plan.Move(s.input, fleet.DefaultPolicy(), s.now)
	switch answer := string(act); act {
	case plan.MoveRetarget:
		return s.target(answer, plan.Retarget(s.input, why, s.placement))
	case plan.MoveNextTarget:
		return s.target(answer, plan.NextTarget(s.input, why, 3, s.placement))
	default:
		return told(answer, why)
	}
}

func told(answer string, why *fleet.Blocker) string {
	if why == nil {
		return answer + "\n"
	}
	return fmt.Sprintf("%s: %s %s: %s [%s]\n", answer, why.Object, why.Code, why.Detail, why.Remedy)
}

// target answers what becomes of a move whose target won't do.
func (s *moveScenario) target(answer string, other plan.Target) string {
	if string(other.Action) != answer {
		answer += ", " + string(other.Action)
	}
	if other.To != "" {
		answer += " to " + string(other.To)
	}
	if len(other.Refused) > 0 {
		answer += fmt.Sprintf(" not %v", other.Refused)
	}
	return told(answer, other.Why)
}

// placement is the placement: it has one worker to offer, if that isn't excluded.
func (s *moveScenario) placement(need plan.Need) (fleet.WorkerID, *fleet.Blocker) {
	why, excluded := need.Exclude[s.offer]
	switch {
	case s.offer == "":
		why = "there is no other"
	case !excluded:
		return s.offer, nil
	}
	return "", &fleet.Blocker{Code: fleet.CodeNoCapacity, Object: "machine/m1", Detail: why}
}

func (s *moveScenario) moveOptions(d *datadriven.TestData) {
	for _, arg := range d.CmdArgs {
		switch mv := &s.input.Move; arg.Key {
		case "failover":
			mv.Reason = fleet.ReasonFailover
		case "unhealthy":
			mv.WasUnhealthy = true
		default:
			s.step(fleet.Step(arg.Key))
		}
	}
}

func (s *moveScenario) change(line string) error {
	name, args, opt := words(line)
	switch name {
	case "step":
		s.step(fleet.Step(args[0]))
	case "after":
		d, err := time.ParseDuration(args[0])
		s.now = s.now.Add(d)
		return err
	case "stuck":
		d, err := time.ParseDuration(args[0])
		s.input.Stuck = d
		return err
	case "source":
		return s.sight(&s.input.Source, args, opt)
	case "target":
		return s.sight(&s.input.Target, args, opt)
	case "machine":
		s.machine(args, opt)
	case "offer":
		s.offer = fleet.WorkerID(args[0])
	case "attempt":
		n, err := strconv.Atoi(args[0])
		s.input.Move.Attempt = n
		return err
	case "refused":
		s.input.Move.Refused = append(s.input.Move.Refused, fleet.WorkerID(args[0]))
	case "is":
		return s.is(args)
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

func (s *moveScenario) is(args []string) error {
	for _, a := range args {
		switch a {
		case "cancelled":
			s.input.Move.Cancel = true
		case "pinned":
			s.input.Move.Pinned = true
		case "alone":
			s.offer = ""
		case "put-back":
			s.place("w1", 3)
		case "locked-out":
			s.input.LockFree = false
		case "braked":
			s.input.Braked = true
		case "calm-elsewhere":
			s.input.CalmElsewhere = true
		default:
			return fmt.Errorf("unknown: %s", a)
		}
	}
	return nil
}

func (s *moveScenario) machine(args []string, opt map[string]string) {
	m := &s.input.Machine
	if d, ok := opt["desired"]; ok {
		m.Desired = fleet.Desired(d)
	}
	if st, ok := opt["state"]; ok {
		m.State, m.UpdatedAt = fleet.MachineState(st), s.now
		m.Reason = strings.Join(args, " ")
	}
}

// sight changes what is known of a worker, and of the machine's VM there.
func (s *moveScenario) sight(on *plan.Sight, args []string, opt map[string]string) error {
	for _, a := range args {
		switch a {
		case "alive", "suspect", "down":
			on.Health = plan.Health(a)
		case "closed":
			s.input.TargetOpen = false
		case "none":
			s.input.Move.To, *on = "", plan.Sight{}
		case "silent":
			on.VM = nil
		case "stale":
			on.Current = false
		case "current":
			on.Current = true
		case "unheard":
			on.Unheard = true
		case "pressed":
			on.Pressure = &fleet.Pressure{CPU: 0.95}
		case "gone":
			s.vm(on).HasVM = false
		case "vm":
			s.vm(on).HasVM, on.VMSince = true, s.now
		default:
			return fmt.Errorf("unknown: %s", a)
		}
	}
	if p, ok := opt["phase"]; ok {
		s.vm(on).Phase = fleet.Phase(p)
	}
	if e, ok := opt["error"]; ok {
		s.vm(on).Error = e
	}
	if name, ok := opt["failing"]; ok {
		s.vm(on).Services = []fleet.ServiceReport{{Name: name, State: "failed",
			Exit: "it ended with status 1"}}
	}
	if g, ok := opt["gen"]; ok {
		n, err := strconv.ParseUint(g, 10, 64)
		s.vm(on).Generation = fleet.Generation(n)
		return err
	}
	return nil
}

// vm returns the report of the machine's VM on a worker; a new one is of the generation placed
// there.
func (s *moveScenario) vm(on *plan.Sight) *fleet.VMReport {
	if on.VM == nil {
		gen := s.input.Move.ToGen
		if on == &s.input.Source {
			gen = s.input.Move.FromGen
		}
		on.VM = &fleet.VMReport{Machine: "m1", Generation: gen}
	}
	return on.VM
}
