//go:build bench

package bench

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

const perWorker = 100 // machines

// TestPlannerAtAnySize measures, in one process and as processor time, what a step of a drain costs
// in fleets of 50, 500 and 5,000 workers with 100 machines each: the plan alone, and the control
// plane's whole step, from a worker's report to the commits that follow. Also the whole plan of a
// rack, and what the state of a machine takes.
func TestPlannerAtAnySize(t *testing.T) {
	var plans, steps []time.Duration
	for _, workers := range []int{50, 500, 5000} {
		f := newBigFleet(t, workers)
		f.remembered()
		one := f.planned("one worker", f.ids(7, 1))
		rack := f.planned("a rack of 40", f.ids(7, 40))
		f.wholePlan(f.ids(7, 40))
		step := f.drained(7)
		plans, steps = append(plans, max(one, rack)), append(steps, step)
	}
	ratio := func(of []time.Duration) float64 { return float64(of[2]) / float64(of[1]) }
	t.Logf("a step at 5,000 workers costs %.2f of one at 500: the plan (the bar is 1.5); %.2f: the "+
		"whole step", ratio(plans), ratio(steps))
	t.Logf("a plan at 5,000 workers and 500,000 machines: %v (the bar is 5ms)", plans[2])
}

// bigFleet is a fleet that nobody runs: records, reports, and a control plane.
type bigFleet struct {
	t       *testing.T
	store   *memstate.Store
	workers int
	now     time.Time
	policy  fleet.Policy
	seen    map[fleet.WorkerID]int64
	r       *records.Records // once they are remembered
}

// onCPU returns the processor time that f takes. It runs on this thread, and hands nothing over.
func onCPU(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // never fails on this clock
		return time.Duration(ts.Nano())
	}
	start := now()
	f()
	return now() - start
}

func newBigFleet(t *testing.T, workers int) *bigFleet {
	f := &bigFleet{t: t, workers: workers, now: time.Unix(1_700_000_000, 0),
		seen:   map[fleet.WorkerID]int64{},
		policy: fleet.DefaultPolicy(), store: memstate.New(memstate.Config{History: 10})}
	r := f.records()
	for i := 0; i < workers; i += perTxn {
		f.join(r, i, min(i+perTxn, workers))
	}
	for i := range workers {
		f.fill(r, i)
	}
	return f
}

func (f *bigFleet) records() *records.Records {
	r := records.New(records.Config{Store: f.store, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return f.now }, Changed: func([]records.Change) {},
		Ended: func([]fleet.Move) {}})
	if err := r.Load(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return r
}

func workerID(i int) fleet.WorkerID { return fleet.WorkerID(fmt.Sprintf("worker-%05d", i)) }

func (f *bigFleet) ids(first, n int) []fleet.WorkerID {
	var ids []fleet.WorkerID
	for i := range min(n, f.workers-first-1) {
		ids = append(ids, workerID(first+i))
	}
	return ids
}

// perTxn is how many workers join with one transaction.
const perTxn = 50

// join writes workers of two sizes.
func (f *bigFleet) join(r *records.Records, from, to int) {
	t := r.Begin()
	for i := from; i < to; i++ {
		w := fleet.Worker{ID: workerID(i), Number: uint32(i + 1), JoinedAt: f.now,
			Runtime: "sandbox",
			Address: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}),
			APIURL:  fmt.Sprintf("https://10.1.%d.%d:7444", i>>8, i&255), Version: "1.0.0",
			Capacity: fleet.Resources{CPUMillis: 64_000 + 32_000*int64(i%2), MemoryMiB: 200 << 10}}
		records.Set(t, r.Workers.New(w.ID), w)
	}
	f.commit(t)
}

func (f *bigFleet) commit(t *records.Txn) {
	f.t.Helper()
	if err := t.Commit(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// fill writes a worker's machines, of three sizes, in networks of 30 over ten workers.
func (f *bigFleet) fill(r *records.Records, i int) {
	share := fleet.Allocation{Worker: workerID(i), Holders: map[fleet.MachineID]fleet.Allocated{}}
	t := r.Begin()
	for j := range perWorker {
		m := f.machine(i, j)
		share.Holders[m.ID] = fleet.Allocated{Resources: m.Config.Resources}
		t.SetMachine(r.Machines.New(m.ID), m)
	}
	records.Set(t, r.Allocations.New(share.Worker), share)
	f.commit(t)
}

func (f *bigFleet) machine(i, j int) fleet.Machine {
	n := i*perWorker + j
	// spread over the workers, so that their order isn't that of the machines
	id := fleet.MachineID(fmt.Sprintf("01%012x", uint64(n)*0x9e3779b97f%(1<<40)))
	size := int64(1 + (n*7+i*3)%3)
	network := uint32(j%34 + 34*(i/10))
	return fleet.Machine{ID: id, Name: fleet.MachineName(fmt.Sprintf("web-%d", n)),
		App: fleet.AppName(fmt.Sprintf("app-%d", n%1000)), NetworkID: network,
		Network: fleet.NetworkName(fmt.Sprintf("customer-%d", network)),
		Number:  uint32(n%60000 + 1),
		Desired: fleet.DesiredStarted, State: fleet.MachineStarted, Generation: 3, CreatedAt: f.now,
		Disk: fleet.StoreDisk("s3://fleet-bucket/pool/disks/" + string(id)),
		Config: fleet.MachineConfig{Image: "debian-12",
			Resources: fleet.Resources{CPUMillis: 250 * size, MemoryMiB: 512 * size},
			Services: []fleet.Service{{Name: "web",
				Cmd: []string{"/usr/bin/web", "--listen", ":8080"},
				Env: map[string]string{"MODE": "production"}}}},
		Placement: &fleet.Placement{Worker: workerID(i), Generation: 3, Since: f.now,
			Instance: fleet.InstanceID(fmt.Sprintf("01HF%022d", n)),
			Address:  netip.MustParseAddr("fd00::1")}}
}

// allAlive is a Look at workers with nothing wrong.
type allAlive struct{}

func (allAlive) Health(fleet.WorkerID) plan.Health                  { return plan.Alive }
func (allAlive) ShutOut(fleet.WorkerID) bool                        { return false }
func (allAlive) Pressed(fleet.WorkerID) bool                        { return false }
func (allAlive) VMs(fleet.WorkerID) (ids []fleet.MachineID, _ bool) { return nil, true }

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// median returns the median of how long f takes, and what one call leaves behind.
func median(n int, f func()) (time.Duration, uint64) {
	took := make([]time.Duration, n)
	before := allocated()
	for i := range n {
		took[i] = onCPU(f)
	}
	garbage := (allocated() - before) / uint64(n)
	slices.Sort(took)
	return took[n/2], garbage
}

// remembered measures what the records take.
func (f *bigFleet) remembered() {
	before := heapInUse()
	took := onCPU(func() { f.r = f.records() })
	size := heapInUse() - before
	f.t.Logf("%d workers: the records take %d MiB, %d bytes for each machine (the bar is 1536), and "+
		"were read in %v", f.workers, size>>20, size/int64(f.r.Machines.Len()), took)
}

// cordoned returns records of the fleet in which workers are being drained.
func (f *bigFleet) cordoned(workers []fleet.WorkerID) (*records.Records, fleet.Drain) {
	r := f.r
	d := fleet.Drain{ID: "d1", Workers: workers, State: fleet.DrainRunning, StartedAt: f.now}
	t := r.Begin()
	for _, id := range workers {
		w, _ := r.Workers.Get(id)
		next := w.Val
		next.Cordoned, next.Drain = true, d.ID
		records.Set(t, w, next)
	}
	f.commit(t)
	return r, d
}

// restore makes workers what they were before cordoned.
func (f *bigFleet) restore(r *records.Records, workers []fleet.WorkerID) {
	t := r.Begin()
	for _, id := range workers {
		w, _ := r.Workers.Get(id)
		next := w.Val
		next.Cordoned, next.Drain = false, ""
		records.Set(t, w, next)
	}
	f.commit(t)
}

// planned measures a step's plan of a drain: its first, by which moves start.
func (f *bigFleet) planned(what string, workers []fleet.WorkerID) time.Duration {
	r, d := f.cordoned(workers)
	defer f.restore(r, workers)
	var p plan.DrainPlan
	took, garbage := median(101, func() { p = f.plan(r, d, f.policy) })
	f.t.Logf("%d workers: a step's plan of %s: %v, %d KiB of garbage, %d moves start, %d machines",
		f.workers, what, took, garbage>>10, len(p.Start), p.Remaining)
	return took
}

func (f *bigFleet) plan(r *records.Records, d fleet.Drain, policy fleet.Policy) (p plan.DrainPlan) {
	r.Plan(func(x *plan.Index) {
		v := plan.View{Index: x, Look: allAlive{}}
		p = plan.Drain(plan.DrainInput{Drain: d}, v, policy, f.now)
	})
	return p
}

// wholePlan measures the plan of all moves of a drain at once.
func (f *bigFleet) wholePlan(workers []fleet.WorkerID) {
	r, d := f.cordoned(workers)
	defer f.restore(r, workers)
	const all = 1 << 30
	policy := fleet.Policy{MovesPerNetwork: all, MovesOut: all, MovesIn: all, MovesFleet: all}
	var p plan.DrainPlan
	took, garbage := median(3, func() { p = f.plan(r, d, policy) })
	f.t.Logf("%d workers: the whole plan of %d workers: %d moves, %d blockers, in %v (the bar is 2s), "+
		"%d MiB of garbage", f.workers, len(workers), len(p.Start), len(p.Blockers), took,
		garbage>>20)
}

// noDisks and noImages are never asked: nothing is created.
type (
	noDisks  struct{ control.Disks }
	noImages struct{ control.Images }
)

// served returns a control plane of the fleet, once it has heard of all workers.
func (f *bigFleet) served() *control.Control {
	f.r = nil
	before := heapInUse()
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool", Policy: f.policy},
		control.Deps{Store: f.store, Disks: noDisks{}, Images: noImages{},
			Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return f.now }})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := c.Refresh(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	for i := range f.workers {
		f.report(c, workerID(i))
	}
	settled := onCPU(func() {
		c.Tick()
		c.Converge(f.t.Context())
	})
	for i := range f.workers {
		f.report(c, workerID(i)) // having seen their assignments
	}
	c.Converge(f.t.Context())
	after := heapInUse()
	f.t.Logf("%d workers: the control plane, with what workers report, takes %d MiB, %d bytes for each "+
		"machine; it had looked at each after %v", f.workers, (after-before)>>20,
		(after-before)/int64(f.workers*perWorker), settled)
	return c
}

// drained drains a worker by the control plane, with workers that do at once what they are told.
// It returns the median of a step: a worker's report, and all that follows from it.
func (f *bigFleet) drained(victim int) time.Duration {
	c := f.served()
	d, err := c.StartDrain(f.t.Context(), []fleet.WorkerID{workerID(victim)}, "bench")
	if err != nil {
		f.t.Fatal(err)
	}
	first := onCPU(func() { c.Converge(f.t.Context()) })
	var steps []time.Duration
	garbage := allocated()
	for range 10_000 {
		done, err := c.Drain(f.t.Context(), d.Drain.ID)
		if err != nil {
			f.t.Fatal(err)
		}
		if done.Drain.State.Final() {
			break
		}
		f.now = f.now.Add(time.Millisecond)
		concerned := map[fleet.WorkerID]bool{workerID(victim): true}
		for _, mv := range done.Moves {
			if !mv.Move.Step.Final() {
				concerned[mv.Move.To] = true
			}
		}
		for id := range concerned {
			report := f.next(c, id)
			steps = append(steps, onCPU(func() {
				err = c.Report(f.t.Context(), report)
				c.Converge(f.t.Context())
			}))
			if err != nil {
				f.t.Fatal(err)
			}
		}
		if f.now.UnixMilli()%50 == 0 {
			c.Tick()
			c.Converge(f.t.Context())
		}
	}
	garbage = (allocated() - garbage) / uint64(len(steps))
	done, _ := c.Drain(f.t.Context(), d.Drain.ID)
	if done.Drain.State != fleet.DrainDone {
		f.t.Fatalf("the drain ended as %s: %+v", done.Drain.State, done.Drain.Blockers)
	}
	slices.Sort(steps)
	f.t.Logf("%d workers: %d machines moved in %d steps; a step from report to commits: p50 %v, p99 %v; "+
		"the first %v; %d KiB of garbage for each, with what the workers read", f.workers,
		done.Drain.Moved, len(steps), steps[len(steps)/2], steps[len(steps)*99/100], first,
		garbage>>10)
	return steps[len(steps)/2]
}

func (f *bigFleet) report(c *control.Control, id fleet.WorkerID) {
	if err := c.Report(f.t.Context(), f.next(c, id)); err != nil {
		f.t.Fatal(err)
	}
}

// next returns the report of a worker that has done what it was told.
func (f *bigFleet) next(c *control.Control, id fleet.WorkerID) fleet.WorkerReport {
	set, err := c.Assignments(f.t.Context(), id, -1)
	if err != nil {
		f.t.Fatal(err)
	}
	f.seen[id]++
	r := fleet.WorkerReport{Worker: id, Boot: "b1", Sequence: f.seen[id], Seen: set.Revision}
	for _, a := range set.Assignments {
		v := fleet.VMReport{Machine: a.Machine, Generation: a.Generation, Instance: a.Instance,
			VM: fleet.VMID(a.Machine[6:]), HasVM: true, Since: f.now}
		switch a.Want {
		case fleet.WantRunning:
			v.Phase = fleet.PhaseHealthy
			v.Services = []fleet.ServiceReport{{Name: "web", State: "ready", PID: 7}}
		case fleet.WantPrepared:
			v.Phase = fleet.PhasePrepared
		case fleet.WantReleased:
			v.Phase, v.HasVM, v.VM = fleet.PhaseReleased, false, ""
		case fleet.WantDiscarded:
			continue
		}
		r.VMs = append(r.VMs, v)
	}
	return r
}
