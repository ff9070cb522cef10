package plan_test

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// TestScenarios plays testdata/*.txt, of the fleet or, where its name begins with move-, of one
// move. See testdata/README.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		switch name := filepath.Base(path); {
		case name == "README":
		case strings.HasPrefix(name, "move-"):
			datadriven.RunTest(t, path, newMoveScenario().run)
		default:
			datadriven.RunTest(t, path, newScenario().run)
		}
	})
}

func newScenario() *scenario {
	return &scenario{policy: fleet.DefaultPolicy(), now: time.Unix(1000, 0).UTC(),
		workers: map[string]*plan.Worker{}, machines: map[string]*fleet.Machine{}}
}

// run does what the lines below a directive say, and then answers the directive.
func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	for line := range strings.Lines(d.Input) {
		if err := s.command(line, &out); err != nil {
			d.Fatalf(t, "%s: %v", line, err)
		}
	}
	directive := d.Cmd
	for _, arg := range d.CmdArgs {
		directive += " " + arg.String()
	}
	if err := s.command(directive, &out); err != nil {
		d.Fatalf(t, "%v", err)
	}
	return out.String()
}

type scenario struct {
	policy   fleet.Policy
	now      time.Time
	workers  map[string]*plan.Worker
	machines map[string]*fleet.Machine
	moves    []fleet.Move
	finished []fleet.Move
	drain    fleet.Drain
}

func (s *scenario) command(line string, out *strings.Builder) error {
	name, args, opt := words(line)
	switch name {
	case "policy":
		s.policy.MovesPerNetwork = number(opt, "network", s.policy.MovesPerNetwork)
		s.policy.MovesOut = number(opt, "out", s.policy.MovesOut)
		s.policy.MovesIn = number(opt, "in", s.policy.MovesIn)
		s.policy.MovesFleet = number(opt, "fleet", s.policy.MovesFleet)
	case "clock":
		s.now = s.now.Add(time.Duration(number(opt, "seconds", 0)) * time.Second)
	case "worker":
		s.worker(args, opt)
	case "machine":
		s.machine(args, opt)
	case "move":
		s.moves = append(s.moves, fleet.Move{ID: "mv-" + fleet.MoveID(args[0]),
			Machine: fleet.MachineID(args[0]), From: fleet.WorkerID(args[1]),
			To:      fleet.WorkerID(args[2]),
			Network: s.machines[args[0]].Network, Step: fleet.StepLocked})
		s.machines[args[0]].Owner = "move/mv-" + args[0]
	case "moved":
		s.end(args[0], true)
	case "undone":
		s.end(args[0], false)
	case "drain":
		s.startDrain(args)
	case "plan":
		s.planDrain(out)
	case "place":
		s.place(args, opt, out)
	case "failover":
		s.failover(out)
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

// words returns a line's command, its arguments, and those of the form key=value.
func words(line string) (command string, args []string, opt map[string]string) {
	opt = map[string]string{}
	all := strings.Fields(line)
	for _, w := range all[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			opt[k] = v
		} else {
			args = append(args, w)
		}
	}
	return all[0], args, opt
}

func number(opt map[string]string, key string, otherwise int) int {
	if v, ok := opt[key]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			panic(err)
		}
		return n
	}
	return otherwise
}

func (s *scenario) worker(args []string, opt map[string]string) {
	w := s.workers[args[0]]
	if w == nil {
		w = &plan.Worker{Health: plan.Alive, Fresh: true}
		w.ID = fleet.WorkerID(args[0])
		w.Capacity = fleet.Resources{CPUMillis: 4000, MemoryMiB: 1024}
		w.Allocation.Holders = map[fleet.MachineID]fleet.Allocated{}
		s.workers[args[0]] = w
	}
	w.Capacity.MemoryMiB = int64(number(opt, "mem", int(w.Capacity.MemoryMiB)))
	w.Runtime = cmp.Or(opt["runtime"], w.Runtime, "sandbox")
	if h, ok := opt["health"]; ok {
		w.Health = plan.Health(h)
	}
	if vms, ok := opt["vms"]; ok {
		w.VMs = nil
		for _, m := range strings.FieldsFunc(vms, func(r rune) bool { return r == ',' }) {
			w.VMs = append(w.VMs, fleet.MachineID(m))
		}
	}
	for _, flag := range args[1:] {
		switch flag {
		case "cordoned":
			w.Cordoned = true
		case "uncordoned":
			w.Cordoned, w.Drained = false, false
		case "drained":
			w.Cordoned, w.Drained = true, true
		case "stale":
			w.Fresh = false
		case "fresh":
			w.Fresh = true
		}
	}
}

func (s *scenario) machine(args []string, opt map[string]string) {
	m := s.machines[args[0]]
	if m == nil {
		m = &fleet.Machine{ID: fleet.MachineID(args[0]), Name: fleet.MachineName(args[0]),
			App:     "app",
			Network: "net", Desired: fleet.DesiredStarted, State: fleet.MachineStarted}
		s.machines[args[0]] = m
	}
	m.Config.Resources = fleet.Resources{CPUMillis: 1000, MemoryMiB: int64(number(opt, "mem", 256))}
	if n, ok := opt["net"]; ok {
		m.Network = fleet.NetworkName(n)
	}
	if d, ok := opt["desired"]; ok {
		m.Desired = fleet.Desired(d)
	}
	if st, ok := opt["state"]; ok {
		m.State = fleet.MachineState(st)
	}
	if w, ok := opt["on"]; ok {
		if m.Placement != nil {
			delete(s.workers[string(m.Placement.Worker)].Allocation.Holders, m.ID)
		}
		m.Placement = nil
		if w != "" {
			m.Placement = &fleet.Placement{Worker: fleet.WorkerID(w)}
			s.workers[w].Allocation.Holders[m.ID] = fleet.Allocated{Resources: m.Config.Resources}
		}
	}
}

// end ends a machine's move: at its target, or undone with an error.
func (s *scenario) end(machine string, there bool) {
	i := slices.IndexFunc(s.moves, func(m fleet.Move) bool { return string(m.Machine) == machine })
	mv := s.moves[i]
	s.moves = slices.Delete(s.moves, i, i+1)
	mv.FinishedAt = s.now
	s.machines[machine].Owner = ""
	delete(s.workers[string(mv.To)].Allocation.Holders, mv.Machine)
	if there {
		mv.Step = fleet.StepDone
		s.machine([]string{machine}, map[string]string{"on": string(mv.To)})
	} else {
		mv.Step, mv.Error = fleet.StepUndone, "its check fails"
	}
	s.finished = append(s.finished, mv)
}

func (s *scenario) startDrain(args []string) {
	s.drain = fleet.Drain{ID: "d1"}
	for _, w := range args {
		s.workers[w].Cordoned, s.workers[w].Drain = true, "d1"
		s.drain.Workers = append(s.drain.Workers, fleet.WorkerID(w))
	}
}

func (s *scenario) view() plan.Snapshot {
	v := plan.Snapshot{Moves: s.moves, Locks: map[fleet.NetworkName]int{}}
	for _, w := range s.workers {
		v.Workers = append(v.Workers, *w)
	}
	for _, m := range s.machines {
		v.Machines = append(v.Machines, *m)
	}
	for _, m := range s.moves {
		v.Locks[m.Network]++
	}
	return v
}

func (s *scenario) planDrain(out *strings.Builder) {
	in := plan.DrainInput{Drain: s.drain, Finished: s.finished}
	p := plan.Drain(in, s.view().View(), s.policy, s.now)
	s.start(p.Start, out)
	for _, b := range p.Blockers {
		fmt.Fprintf(out, "blocked: %s %s since=%d: %s [%s]\n", b.Object, b.Code, b.Since.Unix(),
			b.Detail, b.Remedy)
	}
	s.drain.Blockers = p.Blockers
	fmt.Fprintf(out, "remaining=%d moving=%d done=%v\n", p.Remaining, p.Moving, p.Done)
}

func (s *scenario) start(moves []plan.MoveStart, out *strings.Builder) {
	for _, m := range moves {
		fmt.Fprintf(out, "start: %s %s → %s\n", m.Machine, m.From, m.To)
		machine := s.machines[string(m.Machine)]
		s.workers[string(m.To)].
			Allocation.Holders[m.Machine] = fleet.Allocated{Resources: machine.Config.Resources,
			Move: "mv"}
		if err := s.command(fmt.Sprintf("move %s %s %s", m.Machine, m.From, m.To),
			out); err != nil {
			panic(err)
		}
	}
}

func (s *scenario) place(args []string, opt map[string]string, out *strings.Builder) {
	need := plan.Need{Machine: fleet.MachineID(args[0]), Only: fleet.WorkerID(opt["only"]),
		Isolation: fleet.Isolation(opt["isolation"]),
		Resources: fleet.Resources{CPUMillis: int64(number(opt, "cpu", 1000)),
			MemoryMiB: int64(number(opt, "mem", 256))}}
	to, blocker := plan.Place(s.view().View(), need)
	if blocker != nil {
		fmt.Fprintf(out, "none: %s %s: %s [%s]\n", blocker.Object, blocker.Code, blocker.Detail,
			blocker.Remedy)
		return
	}
	fmt.Fprintf(out, "%s\n", to)
}

func (s *scenario) failover(out *strings.Builder) {
	p := plan.Failover(s.view().View(), s.policy)
	s.start(p.Start, out)
	ids := make([]string, 0, len(p.Waiting))
	for id := range p.Waiting {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(out, "waiting: %s: %s\n", id, p.Waiting[fleet.MachineID(id)].Code)
	}
	if p.Brake != "" {
		fmt.Fprintf(out, "brake: %s\n", p.Brake)
	}
}
