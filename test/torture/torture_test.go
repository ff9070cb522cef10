package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	usualTime = 2 * time.Minute
	slow      = 20 * time.Millisecond // the store's latency in every other round
	stall     = 12 * time.Second      // long enough for a machine to be paused
	calm      = 8 * time.Second       // between stalls
	// syncLimit is for a neighbour's sync while another machine's store is stalled, for as long as
	// that lasts. The bar is 2 s; what is measured is printed, and this only tells that it waits
	// for the stall.
	syncLimit = stall
)

// victim is a machine with what it does to itself.
type victim struct {
	name   string
	memory int64
	ways   [][]string
}

func victims() []victim {
	return []victim{
		{"m64", 64, [][]string{{"write", "/data/a", "300"}}},
		{"m128", 128, [][]string{{"fsync", "/data/a", "16"}, {"map", "/data/b", "256"}}},
		{"m256", 256, [][]string{{"fill", "/data/a"}, {"sync"}}},
		{"m512", 512, [][]string{{"fork", "400"}, {"map", "/data/a", "700"},
			{"write", "/data/b", "200"}}},
		{"m1024", 1024, [][]string{{"write", "/data/a", "900"},
			{"fsync", "/data/b", "4"}, {"sync"}}},
	}
}

// TestTorture runs for SLUICE_TORTURE, two minutes by default.
func TestTorture(t *testing.T) {
	limit := usualTime
	if text := os.Getenv("SLUICE_TORTURE"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		limit = d
	}
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	var proxy *s3proxy.Proxy
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1, Patience: 5 * time.Minute,
		StoreAt: func(at netip.Addr) string {
			proxy = s3proxy.StartAt(t, s3.Endpoint, at)
			return "s3://" + s3.Bucket + "/fleet?endpoint=" + url.QueryEscape(proxy.URL) +
				"&path_style=true&region=us-east-1"
		}})
	r := &rack{t: t, f: f, proxy: proxy, acked: map[string]*fleettest.Acked{}}
	r.quiet = r.create(victim{name: "quiet", memory: 128})
	for _, v := range victims() {
		r.create(v)
	}
	watch := startWatch(t, f)
	r.torture(limit, watch)
	watch.stop()
	r.verify()
	t.Logf(
		"%d stalls; a neighbour's sync while another machine's store is stalled: %v at most (the bar is 2 s), of %d", r.stalls, r.worst, r.syncs)
	t.Logf("a thread waited for %v at most while no store was stalled",
		watch.longest().Round(time.Second))
}

// rack is the machines under torture.
type rack struct {
	t        *testing.T
	f        *fleettest.Fleet
	proxy    *s3proxy.Proxy
	machines []api.Machine
	quiet    api.Machine
	acked    map[string]*fleettest.Acked

	stalls, syncs int
	worst         time.Duration
}

func (r *rack) create(v victim) api.Machine {
	r.t.Helper()
	cfg := fleettest.LedgerConfig()
	cfg.CPUs, cfg.MemoryMiB = 0.5, v.memory
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "50ms")
	for i, way := range v.ways {
		cfg.Services = append(cfg.Services, api.Service{Name: way[0] + strconv.Itoa(i),
			Cmd: append([]string{"/bin/torture"}, way...), Needs: []string{"ledger"}})
	}
	m, err := r.f.CreateMachine(r.t.Context(),
		api.CreateMachine{Name: v.name, App: "test", Network: v.name, Worker: "w1", Config: cfg})
	if err != nil {
		r.t.Fatal(err)
	}
	r.acked[m.ID] = fleettest.WatchAcked(r.t, r.f, m.ID)
	r.progress(m, 1, "is created")
	r.machines = append(r.machines, m)
	return m
}

// torture stalls the store of one machine after the other, and has the store of all slow in
// between.
func (r *rack) torture(limit time.Duration, watch *watch) {
	for began := time.Now(); time.Since(began) < limit; {
		before := map[string]uint64{}
		for _, m := range r.machines {
			before[m.ID] = r.acked[m.ID].Last()
		}
		r.proxy.SetLatency(time.Duration(r.stalls%2) * slow)
		time.Sleep(calm)
		m := r.machines[rand.IntN(len(r.machines))]
		if m.ID == r.quiet.ID {
			continue
		}
		watch.forgive(r.vm(m))
		r.proxy.SetLatencyOf(m.ID, time.Hour)
		r.stalls++
		r.syncBeside(m)
		r.proxy.SetLatencyOf(m.ID, 0)
		watch.forgive("")
		for _, m := range r.machines {
			r.progress(m, before[m.ID]+1, "goes on")
		}
	}
	r.proxy.SetLatency(0)
}

// vm is the VM that a machine is in.
func (r *rack) vm(m api.Machine) string {
	r.t.Helper()
	vms, err := r.f.VMs("w1")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.Machine == m.ID {
			return vm.ID
		}
	}
	r.t.Fatalf("%s is in no VM", m.Name)
	return ""
}

// syncBeside measures a neighbour's sync for as long as a machine's store is stalled.
func (r *rack) syncBeside(m api.Machine) {
	for began := time.Now(); time.Since(began) < stall; time.Sleep(time.Second) {
		start := time.Now()
		// the stall must end, or nothing does
		ctx, cancel := context.WithTimeout(r.t.Context(), 2*syncLimit)
		_, err := r.f.TryRun(ctx, r.quiet.ID, "sh", "-c", "echo x > /data/x; sync")
		cancel()
		took := time.Since(start)
		r.syncs++
		if err != nil {
			r.t.Errorf("sync in %s while the store of %s was stalled: %v",
				r.quiet.Name, m.Name, err)
		}
		r.worst = max(r.worst, took.Round(time.Millisecond))
		if took > syncLimit {
			r.t.Errorf("a sync in %s took %v while the store of %s was stalled",
				r.quiet.Name, took, m.Name)
		}
	}
}

// progress waits until a machine's ledger has acknowledged a record.
func (r *rack) progress(m api.Machine, record uint64, what string) {
	r.t.Helper()
	r.f.Eventually(5*time.Minute, func() error {
		if got := r.acked[m.ID].Last(); got < record {
			return fmt.Errorf("%s %s: record %d is not acknowledged (the last is %d)\n%s", m.Name,
				what, record, got,
				r.f.Sluice("machine", "status", m.ID).Stdout)
		}
		return nil
	})
}

// verify finds all that was acknowledged, and once more after a stop and a start.
func (r *rack) verify() {
	for _, m := range r.machines {
		r.acked[m.ID].MustBeIn(r.f, m.ID)
		// Its disk may be full, and then the ledger can't go on: what was acknowledged is there.
		for _, verb := range [][]string{{"stop"}, {"start", "--wait=false"}} {
			args := append([]string{"machine"}, append(verb, m.ID)...)
			if done := r.f.Sluice(args...); done.Code != 0 {
				r.t.Fatalf("%v of %s: %+v", verb, m.Name, done)
			}
		}
		r.f.Eventually(5*time.Minute, func() error {
			_, err := r.f.TryRun(r.t.Context(), m.ID, "true")
			return err
		})
		r.acked[m.ID].MustBeIn(r.f, m.ID)
		r.t.Logf("%s: %d records acknowledged and found", m.Name, r.acked[m.ID].Last())
	}
}
