package plan

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// runs is how many fleets TestIndexPlansAsLists makes up; SLUICE_PLAN_RUNS asks for more.
const runs = 150

// TestIndexPlansAsLists makes fleets up, changes them in every way that records change, and
// compares: the index that was told of each change is the one that is made of what there is now,
// and plans by it are those that are made by looking at everything.
func TestIndexPlansAsLists(t *testing.T) {
	n := runs
	if s := os.Getenv("SLUICE_PLAN_RUNS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	saw := map[string]int{}
	for seed := range n {
		f := newRandomFleet(uint64(seed))
		for step := range 25 {
			for range 1 + f.rnd.IntN(20) {
				f.change()
			}
			f.index.Settle()
			if err := f.compare(saw); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
	}
	t.Logf("%d fleets: %v", n, saw)
	for _, what := range []string{"started", "done", "braked", "failed over", "crowded",
		fleet.CodeNoCapacity, fleet.CodeNetworkLocked, fleet.CodeTooManyMoves, fleet.CodeBusy,
		fleet.CodeWorkerSuspect, fleet.CodeStopSlow, fleet.CodeStartFailed, fleet.CodePlaced,
		fleet.CodeReserved, fleet.CodeVMLeft, fleet.CodeNoReport} {
		if saw[what] == 0 {
			t.Errorf("no plan had %q", what)
		}
	}
}

// randomFleet is the records of a fleet, the index that is told of them, and what is known beside.
type randomFleet struct {
	rnd      *rand.Rand
	index    *Index
	workers  map[fleet.WorkerID]*fleet.Worker
	shares   map[fleet.WorkerID]*fleet.Allocation
	machines map[fleet.MachineID]*fleet.Machine
	moves    map[fleet.MoveID]*fleet.Move
	locks    map[fleet.NetworkName]int
	looks    randomLook
	size     int
}

type randomLook struct {
	looks
	pressed map[fleet.WorkerID]bool
}

func (l randomLook) Pressed(id fleet.WorkerID) bool { return l.pressed[id] }

func newRandomFleet(seed uint64) *randomFleet {
	f := &randomFleet{rnd: rand.New(rand.NewPCG(seed, 1)), index: NewIndex(),
		workers:  map[fleet.WorkerID]*fleet.Worker{},
		shares:   map[fleet.WorkerID]*fleet.Allocation{},
		machines: map[fleet.MachineID]*fleet.Machine{}, moves: map[fleet.MoveID]*fleet.Move{},
		locks: map[fleet.NetworkName]int{},
		looks: randomLook{looks{}, map[fleet.WorkerID]bool{}}}
	f.size = 2 + f.rnd.IntN(8)
	if seed%10 == 0 {
		f.size = 40
	}
	for range 20 * f.size {
		f.change()
	}
	return f
}

func (f *randomFleet) workerID() fleet.WorkerID {
	return fleet.WorkerID(fmt.Sprintf("w%d", f.rnd.IntN(f.size)))
}

func (f *randomFleet) machineID() fleet.MachineID {
	return fleet.MachineID(fmt.Sprintf("m%02d", f.rnd.IntN(3*f.size)))
}

func (f *randomFleet) network() fleet.NetworkName {
	return fleet.NetworkName(fmt.Sprintf("n%d", f.rnd.IntN(f.size)))
}

func (f *randomFleet) chance(percent int) bool { return f.rnd.IntN(100) < percent }

func pick[T any](f *randomFleet, from ...T) T { return from[f.rnd.IntN(len(from))] }

func (f *randomFleet) resources() fleet.Resources {
	return fleet.Resources{CPUMillis: 500 * int64(1+f.rnd.IntN(3)),
		MemoryMiB: 256 * int64(1+f.rnd.IntN(3))}
}

// change changes one record, or what is known of one worker.
func (f *randomFleet) change() {
	if f.chance(1) {
		f.empty(f.workerID())
		return
	}
	switch f.rnd.IntN(10) {
	case 0, 1:
		f.changeWorker(f.workerID())
	case 2:
		f.look(f.workerID())
	case 3, 4:
		f.changeShare(f.workerID(), f.machineID())
	case 5, 6, 7:
		f.changeMachine(f.machineID())
	case 8:
		f.changeMove(fleet.MoveID("mv" + f.machineID()))
	case 9:
		n := f.network()
		by := 1
		if f.locks[n] > 0 || f.chance(60) {
			if f.locks[n] == 0 {
				return
			}
			by = -1
		}
		count(f.locks, n, by)
		f.index.Lock(n, by)
	}
}

// empty takes everything off a worker.
func (f *randomFleet) empty(id fleet.WorkerID) {
	for _, old := range f.index.Placed(id) {
		now := *old
		now.Placement = nil
		f.machines[old.ID] = &now
		f.index.Machine(old, &now)
	}
	if old := f.shares[id]; old != nil {
		f.shares[id] = &fleet.Allocation{Worker: id}
		f.index.Allocation(old, f.shares[id])
	}
}

func (f *randomFleet) changeWorker(id fleet.WorkerID) {
	old := f.workers[id]
	if old != nil && f.chance(5) {
		delete(f.workers, id)
		f.index.Worker(old, nil)
		return
	}
	now := &fleet.Worker{ID: id, Runtime: pick(f, "sandbox", "qemu")}
	now.Capacity = fleet.Resources{CPUMillis: pick[int64](f, 8000, 8000, 8000, 16000),
		MemoryMiB: pick[int64](f, 4096, 4096, 4097, 8192)}
	if old != nil && f.chance(80) {
		now.Capacity = old.Capacity
	}
	switch f.rnd.IntN(9) {
	case 0:
		now.Cordoned = true
	case 1:
		now.Cordoned, now.Drain = true, "d2"
	case 2:
		now.Cordoned, now.Drained = true, true
	}
	f.workers[id] = now
	f.index.Worker(old, now)
}

func (f *randomFleet) look(id fleet.WorkerID) {
	health := pick(f, Alive, Alive, Alive, Alive, Alive, Alive, Alive, Suspect, Down)
	w := &Worker{Health: health, Fresh: f.chance(60),
		ShutOut: f.chance(5)}
	if f.chance(20) {
		w.VMs = []fleet.MachineID{f.machineID()}
	}
	f.looks.looks[id], f.looks.pressed[id] = w, f.chance(30)
}

// changeShare gives a machine a share of a worker, mostly the one that it is on, or takes it away.
func (f *randomFleet) changeShare(id fleet.WorkerID, machine fleet.MachineID) {
	if m := f.machines[machine]; m != nil && m.Placement != nil && f.chance(80) {
		id = m.Placement.Worker
	}
	old := f.shares[id]
	if old != nil && len(old.Holders) == 0 && f.chance(20) {
		delete(f.shares, id)
		f.index.Allocation(old, nil)
		return
	}
	now := &fleet.Allocation{Worker: id, Holders: map[fleet.MachineID]fleet.Allocated{}}
	if old != nil {
		maps.Copy(now.Holders, old.Holders)
	}
	if _, has := now.Holders[machine]; has && f.chance(60) {
		delete(now.Holders, machine)
	} else {
		now.Holders[machine] = fleet.Allocated{Resources: f.resources()}
	}
	f.shares[id] = now
	f.index.Allocation(old, now)
}

func (f *randomFleet) changeMachine(id fleet.MachineID) {
	old := f.machines[id]
	if old != nil && f.chance(5) {
		delete(f.machines, id)
		f.index.Machine(old, nil)
		return
	}
	now := &fleet.Machine{ID: id, Name: "m", App: "a", Network: f.network(),
		Desired: fleet.DesiredStarted, State: fleet.MachineStarted}
	now.Config.Resources = f.resources()
	if f.chance(4) {
		now.Config.Isolation = fleet.IsolationVM
	}
	if f.chance(8) {
		now.State = pick(f, fleet.MachineFailed, fleet.MachineStopping, fleet.MachineLost)
	}
	if f.chance(3) {
		now.Desired = fleet.DesiredStopped
	}
	if f.chance(4) {
		now.Owner = "move/mv" + string(id)
	}
	if f.chance(85) {
		now.Placement = &fleet.Placement{Worker: f.workerID()}
	}
	f.machines[id] = now
	f.index.Machine(old, now)
}

func (f *randomFleet) changeMove(id fleet.MoveID) {
	old := f.moves[id]
	if old != nil || f.chance(60) {
		if old == nil {
			return
		}
		delete(f.moves, id)
		f.index.Move(old, nil)
		return
	}
	now := &fleet.Move{ID: id, Machine: fleet.MachineID(id[2:]), From: f.workerID(),
		To:   f.workerID(),
		Step: pick(f, fleet.StepReserved, fleet.StepStopping, fleet.StepUnlocked, fleet.StepDone)}
	if f.chance(10) {
		now.To = ""
	}
	f.moves[id] = now
	f.index.Move(old, now)
}

// lists returns the fleet in plain lists.
func (f *randomFleet) lists() (*refFleet, *Index) {
	r := &refFleet{locks: f.locks, pressed: f.looks.pressed}
	x := NewIndex()
	for _, id := range slices.Sorted(maps.Keys(f.workers)) {
		w := Worker{Worker: *f.workers[id], Health: f.looks.Health(id),
			ShutOut: f.looks.ShutOut(id)}
		w.VMs, w.Fresh = f.looks.VMs(id)
		if a := f.shares[id]; a != nil {
			w.Allocation = *a
		}
		r.workers = append(r.workers, w)
		x.Worker(nil, f.workers[id])
	}
	for _, m := range f.machines {
		r.machines = append(r.machines, m)
		x.Machine(nil, m)
	}
	for _, a := range f.shares {
		x.Allocation(nil, a)
	}
	for _, mv := range f.moves {
		x.Move(nil, mv)
		if mv.Step.Counts() {
			r.moves = append(r.moves, mv)
		}
	}
	for n, k := range f.locks {
		x.Lock(n, k)
	}
	x.Settle()
	return r, x
}

// compare compares the index and its plans with those by plain lists.
func (f *randomFleet) compare(saw map[string]int) error {
	ref, anew := f.lists()
	if a, b := dump(f.index), dump(anew); !reflect.DeepEqual(a, b) {
		return fmt.Errorf("the index kept up is\n%+v\nand made anew\n%+v", a, b)
	}
	v, now := View{f.index, f.looks}, time.Unix(1000, 0)
	policy := fleet.Policy{MovesPerNetwork: 1 + f.rnd.IntN(2), MovesOut: 1 + f.rnd.IntN(4),
		MovesIn: 1 + f.rnd.IntN(3), MovesFleet: 1 + f.rnd.IntN(8), BrakeFraction: 0.5}
	for range 3 {
		need := f.need()
		to, b := Place(v, need)
		wantTo, wantB := ref.begin(policy).place(need, nil)
		if to != wantTo || !f.sameBlocker(b, wantB) {
			return fmt.Errorf("place %+v: %s %v, want %s %v", need, to, b, wantTo, wantB)
		}
	}
	in := f.drainInput(now)
	got, want := Drain(in, v, policy, now), ref.drain(in, policy, now)
	if !f.samePlan(got, want) {
		return fmt.Errorf("drain %+v by %+v:\n%+v, want\n%+v", in, policy, got, want)
	}
	over := Failover(v, policy)
	wantOver := ref.failover(policy, Brake(v, policy))
	if !slices.Equal(over.Start, wantOver.Start) || !maps.EqualFunc(over.Waiting, wantOver.Waiting,
		func(a, b fleet.Blocker) bool { return f.sameBlocker(&a, &b) }) {
		return fmt.Errorf("failover: %+v, want %+v", over, wantOver)
	}
	f.note(saw, got, over)
	return nil
}

func (f *randomFleet) note(saw map[string]int, got DrainPlan, over FailoverPlan) {
	mark := func(what string, yes bool) {
		if yes {
			saw[what]++
		}
	}
	for _, b := range got.Blockers {
		saw[b.Code]++
	}
	mark("started", len(got.Start) > 0)
	mark("crowded", len(got.Start) > 1)
	mark("done", got.Done)
	mark("braked", over.Brake != "")
	mark("failed over", len(over.Start) > 0)
}

func (f *randomFleet) need() Need {
	need := Need{Machine: f.machineID(), Resources: f.resources(), Calm: f.chance(30),
		Isolation: pick(f, "", "", fleet.IsolationVM)}
	if f.chance(20) {
		need.Only = f.workerID()
	}
	if f.chance(50) {
		need.Exclude = map[fleet.WorkerID]string{f.workerID(): "it is slow there"}
	}
	return need
}

func (f *randomFleet) drainInput(now time.Time) DrainInput {
	in := DrainInput{Drain: fleet.Drain{ID: "d2"}}
	bare := func(id fleet.WorkerID) bool {
		a := f.shares[id]
		return f.index.CountPlaced(id) == 0 && (a == nil || len(a.Holders) == 0)
	}
	if id := f.workerID(); f.workers[id] != nil && bare(id) {
		in.Drain.Workers = append(in.Drain.Workers, id)
		return in
	}
	for _, id := range slices.Sorted(maps.Keys(f.workers)) {
		empty := f.index.CountPlaced(id) == 0
		if f.workers[id].Drain != "" && (!empty || f.chance(50)) || empty && f.chance(10) {
			in.Drain.Workers = append(in.Drain.Workers, id)
		}
	}
	if f.chance(3) {
		in.Drain.Workers = append(in.Drain.Workers, "w99") // it isn't one any more
	}
	for i := range max(f.rnd.IntN(6)-3, 0) {
		in.Finished = append(in.Finished, fleet.Move{ID: fleet.MoveID(fmt.Sprintf("old%d", i)),
			Machine: f.machineID(), From: f.workerID(), Step: fleet.StepUndone,
			Error:      "its check fails",
			FinishedAt: now.Add(-time.Duration(f.rnd.IntN(40)) * time.Second)})
	}
	return in
}

func (f *randomFleet) samePlan(a, b DrainPlan) bool {
	return slices.Equal(a.Start, b.Start) && a.Remaining == b.Remaining && a.Moving == b.Moving &&
		a.Done == b.Done && slices.EqualFunc(a.Blockers, b.Blockers,
		func(a, b fleet.Blocker) bool { return f.sameBlocker(&a, &b) })
}

// sameBlocker compares blockers, but for the sentence that tells of more workers than are told of.
func (f *randomFleet) sameBlocker(a, b *fleet.Blocker) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Code == b.Code && a.Object == b.Object && a.Remedy == b.Remedy &&
		a.Since.Equal(b.Since) &&
		(a.Detail == b.Detail || a.Code == fleet.CodeNoCapacity && len(f.workers) > mostTold)
}

// dumped is all that an index has, in a form that can be compared.
type dumped struct {
	Workers       map[fleet.WorkerID]string
	Order, Leaves []fleet.WorkerID
	Nodes         []room
	Where         map[fleet.MachineID]fleet.WorkerID
	Elsewhere     map[fleet.MachineID][]fleet.WorkerID
	Moving        map[fleet.MachineID]int
	Out, In       map[fleet.WorkerID]int
	Locks         map[fleet.NetworkName]int
	Moves         map[fleet.MoveID]*fleet.Move
}

func dump(x *Index) dumped {
	d := dumped{Workers: map[fleet.WorkerID]string{}, Nodes: x.rooms.nodes, Moving: x.moving,
		Out: x.out, In: x.in, Locks: x.locks, Moves: x.moves,
		Where:     map[fleet.MachineID]fleet.WorkerID{},
		Elsewhere: map[fleet.MachineID][]fleet.WorkerID{}}
	ids := func(list []*entry) (ids []fleet.WorkerID) {
		for _, e := range list {
			ids = append(ids, e.id)
		}
		return ids
	}
	d.Order, d.Leaves = ids(x.order), ids(x.rooms.leaves)
	for id, e := range x.where {
		d.Where[id] = e.id
	}
	for id, list := range x.elsewhere {
		d.Elsewhere[id] = slices.Sorted(slices.Values(ids(list)))
	}
	for id, e := range x.workers {
		lists := slices.Clone(e.ready)
		slices.SortFunc(lists, func(a, b readyList) int {
			return cmp.Compare(fmt.Sprint(a.class), fmt.Sprint(b.class))
		})
		text := fmt.Sprint(e.rec, e.used, e.placed, e.started, len(e.holders))
		for _, l := range append(lists, readyList{machines: e.odd}) {
			text += fmt.Sprint(l.class)
			for _, m := range l.machines {
				text += fmt.Sprintf(" %p", m)
			}
		}
		d.Workers[id] = text
	}
	return d
}
