package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var ofNet = fleet.QuotaScope{Network: "net"}

// limit sets limits of a scope.
func (f *fixture) limit(of fleet.QuotaScope, limits map[fleet.Quantity]int64) {
	f.t.Helper()
	change := map[fleet.Quantity]*int64{}
	for q, n := range limits {
		change[q] = &n
	}
	if _, err := f.c.SetQuota(f.t.Context(), of, change); err != nil {
		f.t.Fatal(err)
	}
}

// uses returns what a scope uses.
func (f *fixture) uses(of fleet.QuotaScope) fleet.Amounts {
	f.t.Helper()
	v, err := f.c.Quota(f.t.Context(), of)
	if err != nil {
		f.t.Fatal(err)
	}
	return v.Used
}

// overQuota fails unless an error says that a scope is at its quota, with all that helps.
func overQuota(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errs.Is(err, errs.Exhausted) || errs.RemedyOf(err) == "" {
		t.Fatalf("not refused by a quota, or without a remedy: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+errs.RemedyOf(err), w) {
			t.Errorf("%q isn't in: %v; %s", w, err, errs.RemedyOf(err))
		}
	}
}

// farStore is a state that is far away: what was decided takes a while to be durable, and then is
// so for a while before who decided it hears of that.
type farStore struct{ state.Store }

func (s farStore) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	time.Sleep(2 * time.Millisecond)
	rev, err := s.Store.Commit(ctx, txn)
	if err == nil {
		time.Sleep(4 * time.Millisecond) // those who have lost decide anew meanwhile
	}
	return rev, err
}

// beside returns another control plane on the fixture's state. There shouldn't be two; it shows
// that nothing but the state decides.
func (f *fixture) beside() *control.Control {
	f.t.Helper()
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool",
		Tick: 20 * time.Millisecond}, control.Deps{Store: f.store, Disks: f.disks,
		Images: memImages{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	f.t.Cleanup(func() { cancel(); _ = g.Wait() })
	f.eventually("the state is read", func() bool { _, err := c.Workers(ctx); return err == nil })
	return c
}

// TestManyCreatesAtOnceGetWhatTheQuotaHas: never one more, in whichever order they come, and
// whichever server they come to.
func TestManyCreatesAtOnceGetWhatTheQuotaHas(t *testing.T) {
	const places, callers = 3, 12
	f := newFixtureOn(t, farStore{memstate.New(memstate.Config{})})
	servers := []*control.Control{f.c, f.beside()}
	f.limit(ofNet, map[fleet.Quantity]int64{fleet.QuotaMachines: places})
	var mu sync.Mutex
	made := 0
	var g errgroup.Group
	for i := range callers {
		g.Go(func() error {
			req := request(fmt.Sprintf("m%d", i), "net")
			req.App, req.SkipStart = fleet.AppName(fmt.Sprintf("app%d", i%3)), true
			_, err := servers[i%2].CreateMachine(t.Context(), req)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !errs.Is(err, errs.Exhausted):
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all, err := f.c.Machines(t.Context(), fleet.MachineFilter{})
	if err != nil || made != places || len(all) != places {
		t.Errorf("%d were made, and there are %d, %v; want %d", made, len(all), err, places)
	}
	if n := f.uses(ofNet)[fleet.QuotaMachines]; n != places {
		t.Errorf("%d are counted, not %d", n, places)
	}
	more := request("more", "net")
	more.SkipStart = true
	_, err = f.c.CreateMachine(t.Context(), more)
	overQuota(t, err, "network net has a quota of 3 machines: it uses 3 machines",
		"this would add 1 machine", "sluice quota set net --machines N")
	other := request("other", "elsewhere")
	other.SkipStart = true
	if _, err := f.c.CreateMachine(t.Context(), other); err != nil {
		t.Errorf("another network is refused, too: %v", err)
	}
}

// TestManyAtOnceAllGetThrough: what many ask of one network at once isn't refused because of the
// others.
func TestManyAtOnceAllGetThrough(t *testing.T) {
	f := newFixtureOn(t, farStore{memstate.New(memstate.Config{})}, "w1")
	var g errgroup.Group
	for i := range 60 {
		g.Go(func() error {
			req := request(fmt.Sprintf("m%d", i), "net")
			req.SkipStart = true
			_, err := f.c.CreateMachine(t.Context(), req)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestStartsAtOnceGetWhatTheQuotaHas, though nothing of a network but its quota is common to them.
func TestStartsAtOnceGetWhatTheQuotaHas(t *testing.T) {
	f := newFixtureOn(t, farStore{memstate.New(memstate.Config{})}, "w1", "w2", "w3", "w4", "w5",
		"w6")
	for i := range 6 {
		req := request(fmt.Sprintf("m%d", i), "net")
		req.SkipStart = true
		if _, err := f.c.CreateMachine(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	f.limit(ofNet, map[fleet.Quantity]int64{fleet.QuotaCPU: 1500})
	var started atomic.Int64
	var g errgroup.Group
	for i := range 6 {
		g.Go(func() error {
			_, err := f.c.StartMachine(t.Context(), fmt.Sprintf("m%d", i))
			if errs.Is(err, errs.Exhausted) {
				return nil
			}
			started.Add(1)
			return err
		})
	}
	if err := g.Wait(); err != nil || started.Load() != 1 || f.uses(ofNet)[fleet.QuotaCPU] != 1000 {
		t.Errorf("%d machines of 1 cpu were started, %v, using %v; the quota is 1.5",
			started.Load(), err, f.uses(ofNet))
	}
}

// TestWhatCounts: machines and disks while they are there, processors and memory while they run.
func TestWhatCounts(t *testing.T) {
	f := newFixture(t, "w1")
	running := fleet.Amounts{fleet.QuotaMachines: 1, fleet.QuotaDisk: 1 << 30,
		fleet.QuotaRunning: 1, fleet.QuotaCPU: 1000, fleet.QuotaMemory: 256}
	stopped := fleet.Amounts{fleet.QuotaMachines: 1, fleet.QuotaDisk: 1 << 30}
	f.create("a", "net")
	for _, s := range fleet.QuotaScopes("net", "app") {
		if got := f.uses(s); !maps.Equal(got, running) {
			t.Errorf("%s uses %v, want %v", s, got, running)
		}
	}
	if _, err := f.c.StopMachine(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f.eventually("what is stopped uses less",
		func() bool { return maps.Equal(f.uses(ofNet), stopped) })
	f.limit(ofNet, map[fleet.Quantity]int64{fleet.QuotaMemory: 255})
	_, err := f.c.StartMachine(t.Context(), "a")
	overQuota(t, err, "quota of 255 MiB of memory", "256 MiB", "stop machines")
	if m := f.machine("a").Machine; m.Desired != fleet.DesiredStopped || m.Placement != nil {
		t.Errorf("what is refused changes the machine: %+v", m)
	}
	req := request("b", "net")
	req.SkipStart, req.Config.DiskGiB = true, 3
	if _, err := f.c.CreateMachine(t.Context(), req); err != nil {
		t.Errorf("one that isn't started needs no memory: %v", err)
	}
	if got := f.uses(ofNet)[fleet.QuotaDisk]; got != 4<<30 {
		t.Errorf("disks of 1 and 3 GiB count as %d", got)
	}
	for _, name := range []string{"a", "b"} {
		if err := f.c.DestroyMachine(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	f.eventually("nothing is used", func() bool { return len(f.uses(ofNet)) == 0 })
}

// TestALoweredQuotaHarmsNothing that is there: it runs on, is drained, restarted and stopped, and
// doesn't grow.
func TestALoweredQuotaHarmsNothing(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	for _, name := range []string{"a", "b", "c"} {
		f.create(name, "net")
	}
	before := f.uses(ofNet)
	f.limit(ofNet, map[fleet.Quantity]int64{fleet.QuotaMachines: 1, fleet.QuotaRunning: 1,
		fleet.QuotaCPU: 0, fleet.QuotaMemory: 1, fleet.QuotaDisk: 1})
	for _, victim := range []fleet.WorkerID{"w1", "w2"} {
		d, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{victim}, "test")
		if err != nil {
			t.Fatal(err)
		}
		f.eventually("drained", func() bool {
			if got := f.uses(ofNet); !maps.Equal(got, before) {
				t.Fatalf("during a drain %v is used, not %v", got, before)
			}
			d, err = f.c.Drain(t.Context(), d.Drain.ID)
			return err == nil && d.Drain.State == fleet.DrainDone
		})
		if _, err := f.c.Uncordon(t.Context(), victim); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.c.StartMachine(t.Context(), "a"); err != nil {
		t.Errorf("to start what runs: %v", err)
	}
	f.serve()
	if got := f.uses(ofNet); !maps.Equal(got, before) {
		t.Errorf("after a restart %v is used, not %v", got, before)
	}
	if _, err := f.c.StopMachine(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f.eventually("stopped", func() bool { return f.machine("a").Machine.Placement == nil })
	_, err := f.c.StartMachine(t.Context(), "a")
	overQuota(t, err, "quota of 1 running machine", "2 running machines")
	if err := f.c.ClearQuota(t.Context(), ofNet); err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.StartMachine(t.Context(), "a"); err != nil {
		t.Errorf("without a quota: %v", err)
	}
	if err := f.c.ClearQuota(t.Context(), ofNet); !errs.Is(err, errs.NotFound) {
		t.Errorf("cleared twice: %v", err)
	}
}

// TestWhichQuotaCounts: the default is for networks without a limit of their own, and an app's is
// beside its network's.
func TestWhichQuotaCounts(t *testing.T) {
	f := newFixture(t, "w1")
	make1 := func(name, network, app string) error {
		req := request(name, network)
		req.App, req.SkipStart = fleet.AppName(app), true
		_, err := f.c.CreateMachine(t.Context(), req)
		return err
	}
	f.limit(fleet.QuotaScope{Default: true}, map[fleet.Quantity]int64{fleet.QuotaMachines: 1})
	f.limit(fleet.QuotaScope{Network: "free"},
		map[fleet.Quantity]int64{fleet.QuotaMachines: fleet.Unlimited})
	f.limit(fleet.QuotaScope{Network: "free", App: "one"},
		map[fleet.Quantity]int64{fleet.QuotaMachines: 1})
	for _, s := range []struct{ name, network, app, refused string }{
		{"a", "n1", "app", ""}, {"b", "n1", "app", "network n1"},
		{"a", "n2", "app", ""}, {"a", "free", "one", ""}, {"b", "free", "one",
			"app one in network free"}, {"a", "free", "two", ""}, {"b", "free", "two", ""}} {
		err := make1(s.name, s.network, s.app)
		if s.refused == "" && err != nil {
			t.Errorf("%v: %v", s, err)
		} else if s.refused != "" {
			overQuota(t, err, s.refused)
		}
	}
	views, err := f.c.Quotas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if v.Scope == (fleet.QuotaScope{Network: "n1"}) &&
			(v.Limits[fleet.QuotaMachines] != 1 || len(v.Own) != 0) {
			t.Errorf("n1 has %v of its own, and %v counts", v.Own, v.Limits)
		}
	}
	for _, bad := range []map[fleet.Quantity]int64{{"wishes": 1}, {fleet.QuotaMachines: -2},
		{fleet.QuotaImages: 1}} {
		change := map[fleet.Quantity]*int64{}
		for q, n := range bad {
			change[q] = &n
		}
		if _, err := f.c.SetQuota(t.Context(), ofNet, change); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestImagesHaveAQuota of the whole fleet: one beyond it is refused before it is read.
func TestImagesHaveAQuota(t *testing.T) {
	f := newFixtureOn(t, farStore{memstate.New(memstate.Config{})})
	f.limit(fleet.QuotaScope{}, map[fleet.Quantity]int64{fleet.QuotaImageBytes: 3 << 30})
	var mu sync.Mutex
	made := 0
	var g errgroup.Group
	for i := range 6 {
		g.Go(func() error {
			_, err := f.c.CreateImage(t.Context(), fleet.ImageName(fmt.Sprintf("i%d", i)), 1<<30,
				nil)
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			} else if !errs.Is(err, errs.Exhausted) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || made != 2 {
		t.Errorf("%d images beside the first, %v; there is room for 2", made, err)
	}
	_, err := f.c.CreateImage(t.Context(), "more", 1<<30, unread{t})
	overQuota(t, err, "the fleet has a quota of 3 GiB of images")
}

// unread fails a test when it is read.
type unread struct{ t *testing.T }

func (r unread) Read([]byte) (int, error) {
	r.t.Error("the body is read")
	return 0, fmt.Errorf("not to be read")
}

// TestSecretsHaveAQuota beside the bounds that each app has; a new value needs no room.
func TestSecretsHaveAQuota(t *testing.T) {
	f := newKeyedFixture(t)
	set := func(name string) error {
		_, err := f.c.SetSecret(t.Context(), ofApp, name, []byte("value of "+name))
		return err
	}
	f.limit(ofNet, map[fleet.Quantity]int64{fleet.QuotaSecrets: 1})
	if err := set("A"); err != nil {
		t.Fatal(err)
	}
	overQuota(t, set("B"), "network net has a quota of 1 secret")
	if err := set("A"); err != nil {
		t.Errorf("a new value: %v", err)
	}
	if err := f.c.UnsetSecret(t.Context(), ofApp, "A"); err != nil {
		t.Fatal(err)
	}
	if err := set("B"); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// TestUseIsCountedAnewAtStart: a fleet of an older release, which counted nothing, or counted and
// was run by an older one since, has the right numbers.
func TestUseIsCountedAnewAtStart(t *testing.T) {
	f := newFixture(t, "w1")
	f.create("a", "net")
	right := f.uses(ofNet)
	for _, wrong := range []string{"", `{"used":{"machines":7}}`} {
		f.stop()
		kvs, _, err := f.store.List(t.Context(), "fleet/usage/")
		if err != nil || len(kvs) == 0 {
			t.Fatalf("%d records, %v", len(kvs), err)
		}
		var txn state.Txn
		for _, kv := range kvs {
			txn.Then = append(txn.Then, state.Op{Key: kv.Key, Delete: wrong == "",
				Value: []byte(wrong)})
		}
		if wrong != "" {
			txn.Then = append(txn.Then, state.Op{Key: "fleet/usage/network/gone",
				Value: []byte(wrong)})
		}
		if _, err := f.store.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
		f.serve()
		if got := f.uses(ofNet); !maps.Equal(got, right) {
			t.Errorf("from %q %v is counted, not %v", wrong, got, right)
		}
		if got := f.uses(fleet.QuotaScope{Network: "gone"}); len(got) != 0 {
			t.Errorf("a network without anything uses %v", got)
		}
	}
}

// TestAWorkerIsForAMachineThatStarts: it isn't kept for later, so it is refused rather than lost.
func TestAWorkerIsForAMachineThatStarts(t *testing.T) {
	f := newFixture(t, "w1")
	for _, worker := range []fleet.WorkerID{"w1", "nobody"} {
		req := request("m", "net")
		req.Worker, req.SkipStart = worker, true
		if _, err := f.c.CreateMachine(t.Context(), req); !errs.Is(err, errs.Invalid) {
			t.Errorf("on %s: %v", worker, err)
		}
	}
	if n, _ := f.c.Machines(t.Context(), fleet.MachineFilter{}); len(n) != 0 {
		t.Errorf("%d machines are made", len(n))
	}
}
