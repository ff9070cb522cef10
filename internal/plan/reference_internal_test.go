package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// refFleet is a fleet in plain lists, and plans for it by looking at everything, one after the
// other: what the planner is measured against. It has nothing of the index.
type refFleet struct {
	policy   fleet.Policy
	workers  []Worker // by id
	machines []*fleet.Machine
	moves    []*fleet.Move // those that count
	locks    map[fleet.NetworkName]int
	pressed  map[fleet.WorkerID]bool
	out, in  map[fleet.WorkerID]int
	moving   map[fleet.MachineID]bool
}

func (r *refFleet) worker(id fleet.WorkerID) (Worker, bool) {
	i := slices.IndexFunc(r.workers, func(w Worker) bool { return w.ID == id })
	if i < 0 {
		return Worker{}, false
	}
	return r.workers[i], true
}

// begin makes copies of what a plan's bookings change.
func (r *refFleet) begin(policy fleet.Policy) *refFleet {
	t := *r
	t.policy, t.locks, t.workers = policy, maps.Clone(r.locks), slices.Clone(r.workers)
	for i := range t.workers {
		t.workers[i].Allocation.Holders = maps.Clone(t.workers[i].Allocation.Holders)
		if t.workers[i].Allocation.Holders == nil {
			t.workers[i].Allocation.Holders = map[fleet.MachineID]fleet.Allocated{}
		}
	}
	t.machines = slices.Clone(r.machines)
	slices.SortFunc(t.machines, func(a, b *fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	t.out, t.in = map[fleet.WorkerID]int{}, map[fleet.WorkerID]int{}
	t.moving = map[fleet.MachineID]bool{}
	for _, mv := range r.moves {
		t.out[mv.From]++
		if mv.To != "" {
			t.in[mv.To]++
		}
		t.moving[mv.Machine] = true
	}
	return &t
}

func (r *refFleet) book(m *fleet.Machine, to fleet.WorkerID) MoveStart {
	w, _ := r.worker(to)
	w.Allocation.Holders[m.ID] = fleet.Allocated{Resources: m.Config.Resources, Move: "planned"}
	r.locks[m.Network]++
	r.out[m.Placement.Worker]++
	r.in[to]++
	r.moving[m.ID] = true
	r.moves = append(slices.Clip(r.moves), &fleet.Move{})
	return MoveStart{Machine: m.ID, From: m.Placement.Worker, To: to}
}

func (r *refFleet) refuse(w Worker, need Need) *Refusal {
	no := func(code, remedy, format string, args ...any) *Refusal {
		return &Refusal{Worker: w.ID, Code: code, Detail: fmt.Sprintf(format, args...),
			Remedy: remedy}
	}
	uncordon := fmt.Sprintf("sluice worker uncordon %s", w.ID)
	if need.Calm && r.pressed[w.ID] {
		return no("excluded", "", "under pressure")
	}
	if why, ok := need.Exclude[w.ID]; ok {
		return no("excluded", "", "%s", why)
	}
	if !need.Isolation.GivenBy(w.Runtime) {
		return no("isolation", "", "runtime %s, whose machines share a kernel", w.Runtime)
	}
	switch {
	case w.Health == Down:
		return no("down", "", "down")
	case w.Drain != "":
		return no("draining", fmt.Sprintf("sluice drain cancel %s", w.Drain), "draining")
	case w.Drained:
		return no("drained", uncordon, "drained")
	case w.Cordoned:
		return no("cordoned", uncordon, "cordoned")
	case w.Health != Alive:
		return no("suspect", "", "not heard of lately")
	}
	free := w.Capacity.Sub(w.Allocation.Used())
	if own, ok := w.Allocation.Holders[need.Machine]; ok {
		free = free.Add(own.Resources)
	}
	if short := need.Resources.MemoryMiB - free.MemoryMiB; short > 0 {
		return no("memory", "", "%d MiB of memory free, %d short", max(free.MemoryMiB, 0), short)
	}
	if short := need.Resources.CPUMillis - free.CPUMillis; short > 0 {
		return no("cpu", "", "%.2f cpus free, %.2f short", float64(max(free.CPUMillis, 0))/1000,
			float64(short)/1000)
	}
	return nil
}

func (r *refFleet) place(need Need, skip func(Worker) bool) (fleet.WorkerID, *fleet.Blocker) {
	var best fleet.WorkerID
	var least float64
	var refusals []Refusal
	for _, w := range r.workers {
		if need.Only != "" && w.ID != need.Only {
			continue
		}
		if no := r.refuse(w, need); no != nil {
			refusals = append(refusals, *no)
			continue
		}
		if skip != nil && skip(w) {
			continue
		}
		used := w.Allocation.Used().Add(need.Resources)
		if own, ok := w.Allocation.Holders[need.Machine]; ok {
			used = used.Sub(own.Resources)
		}
		share := max(float64(used.CPUMillis)/float64(w.Capacity.CPUMillis),
			float64(used.MemoryMiB)/float64(w.Capacity.MemoryMiB))
		if best == "" || share < least {
			best, least = w.ID, share
		}
	}
	if best == "" {
		return "", refNoPlace(need, refusals)
	}
	return best, nil
}

func refNoPlace(need Need, refusals []Refusal) *fleet.Blocker {
	b := &fleet.Blocker{Code: fleet.CodeNoCapacity, Object: "machine/" + string(need.Machine),
		Remedy: "add a worker: sluice worker --name NAME …"}
	if need.Only != "" {
		b.Object = "worker/" + string(need.Only)
	}
	if need.Isolation != "" {
		b.Remedy = "add a worker whose VMs have kernels: sluice worker --runtime qemu --name NAME …"
	}
	if len(refusals) == 0 {
		b.Detail = "no worker has joined"
		return b
	}
	parts, found := make([]string, 0, len(refusals)), false
	for _, no := range refusals {
		parts = append(parts, fmt.Sprintf("%s: %s", no.Worker, no.Detail))
		if no.Remedy != "" && !found {
			b.Remedy, found = no.Remedy, true
		}
	}
	b.Detail = fmt.Sprintf("needs %.2f cpus and %d MiB; %s", float64(need.Resources.CPUMillis)/1000,
		need.Resources.MemoryMiB, strings.Join(parts, "; "))
	return b
}

func (r *refFleet) next(m *fleet.Machine,
	exclude map[fleet.WorkerID]string) (fleet.WorkerID, *fleet.Blocker) {
	ex := map[fleet.WorkerID]string{m.Placement.Worker: "the machine is on it"}
	maps.Copy(ex, exclude)
	need := NeedOf(*m, ex)
	if _, blocker := r.place(need, nil); blocker != nil {
		return "", blocker
	}
	if r.locks[m.Network] >= max(r.policy.MovesPerNetwork, 1) {
		return "", networkLocked(m.Network)
	}
	to, _ := r.place(need, func(w Worker) bool { return r.in[w.ID] >= r.policy.MovesIn })
	if to == "" || len(r.moves) >= r.policy.MovesFleet ||
		r.out[m.Placement.Worker] >= r.policy.MovesOut {
		return "", tooMany()
	}
	return to, nil
}

func (r *refFleet) drain(in DrainInput, policy fleet.Policy, now time.Time) DrainPlan {
	t, p, before := r.begin(policy), DrainPlan{}, len(r.moves)
	tried, exclude := failures(in.Finished), map[fleet.WorkerID]string{}
	var turn []fleet.Blocker
	for _, w := range in.Drain.Workers {
		exclude[w] = "in the same drain"
	}
	for _, m := range t.machines {
		if m.Placement == nil || !slices.Contains(in.Drain.Workers, m.Placement.Worker) {
			continue
		}
		if m.Desired == fleet.DesiredStarted {
			p.Remaining++
		}
		if t.moving[m.ID] {
			continue
		}
		from, _ := t.worker(m.Placement.Worker)
		if b := notMovable(m, m.Placement.Worker, from.Health, tried[m.ID], now); b != nil {
			p.Blockers = append(p.Blockers, *b)
			continue
		}
		if m.Desired != fleet.DesiredStarted || m.State == fleet.MachineStopping ||
			m.State == fleet.MachineFailed {
			continue
		}
		to, blocker := t.next(m, exclude)
		switch {
		case blocker == nil:
			p.Start = append(p.Start, t.book(m, to))
		case blocker.Code == fleet.CodeNetworkLocked || blocker.Code == fleet.CodeTooManyMoves:
			turn = append(turn, *blocker)
		default:
			p.Blockers = append(p.Blockers, noTarget(*blocker, m, in.Drain))
		}
	}
	for _, mv := range r.moves[:before] {
		if slices.Contains(in.Drain.Workers, mv.From) || slices.Contains(in.Drain.Workers, mv.To) {
			p.Moving++
		}
	}
	idle := p.Moving == 0 && len(p.Start) == 0
	p.Done = idle && p.Remaining == 0
	if idle && len(p.Blockers) == 0 {
		p.Blockers = turn
	}
	for _, id := range in.Drain.Workers {
		left := r.leftOn(id)
		p.Done = p.Done && left == nil
		if left != nil && idle && len(p.Blockers) == 0 {
			p.Blockers = append(p.Blockers, *left)
		}
	}
	p.Blockers = orderBlockers(p.Blockers, in.Drain.Blockers, now)
	return p
}

func (r *refFleet) leftOn(id fleet.WorkerID) *fleet.Blocker {
	w, ok := r.worker(id)
	if !ok {
		return nil
	}
	for _, m := range r.begin(r.policy).machines {
		if m.Placement != nil && m.Placement.Worker == id {
			return &fleet.Blocker{Code: fleet.CodePlaced, Object: "machine/" + string(m.ID),
				Remedy: "wait for it, or: sluice machine status " + string(m.ID),
				Detail: fmt.Sprintf("%s/%s (%s) is still placed on %s", m.App, m.Name, m.State, id)}
		}
	}
	switch n := len(w.Allocation.Holders); {
	case n > 0:
		return &fleet.Blocker{Code: fleet.CodeReserved, Object: "worker/" + string(id),
			Detail: fmt.Sprintf("%d reservations are held on %s", n, id),
			Remedy: "wait for the operations that hold them"}
	case w.Health == Down:
		return nil
	case len(w.VMs) > 0:
		return &fleet.Blocker{Code: fleet.CodeVMLeft, Object: "worker/" + string(id),
			Detail: fmt.Sprintf("%s reports a VM of %s", id, w.VMs[0]),
			Remedy: "wait for the worker to remove it"}
	case w.Health == Suspect || !w.Fresh:
		return &fleet.Blocker{Code: fleet.CodeNoReport, Object: "worker/" + string(id),
			Detail: string(id) + " has not yet reported that nothing is left",
			Remedy: "check that the worker runs and reaches the server"}
	}
	return nil
}

func (r *refFleet) failover(policy fleet.Policy, brake string) FailoverPlan {
	p := FailoverPlan{Waiting: map[fleet.MachineID]fleet.Blocker{}, Brake: brake}
	t := r.begin(policy)
	for _, m := range t.machines {
		if m.Placement == nil || m.Owner != "" || m.Desired != fleet.DesiredStarted ||
			t.moving[m.ID] {
			continue
		}
		w, ok := t.worker(m.Placement.Worker)
		if !ok || w.Health != Down || w.Drain != "" {
			continue
		}
		if p.Brake != "" {
			p.Waiting[m.ID] = fleet.Blocker{Code: fleet.CodeBrake, Object: "fleet", Detail: p.Brake,
				Remedy: "sluice worker drain " + string(w.ID)}
			continue
		}
		to, blocker := t.next(m, nil)
		if blocker != nil {
			p.Waiting[m.ID] = *blocker
			continue
		}
		p.Start = append(p.Start, t.book(m, to))
	}
	return p
}
