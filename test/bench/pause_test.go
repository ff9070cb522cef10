//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
	"github.com/sluice-platform/sluice/test/otlptest"
)

// TestPausePerMove measures the pause of a move as a client sees it: from the last answer of the
// machine's HTTP service to the first one after, asking through the fleet, which knows where the
// machine is. The same data on a 1 GiB and on a 100 GiB disk must give the same pause. It prints
// what pauses consist of, by the fleet's own traces.
func TestPausePerMove(t *testing.T) {
	const moves = 50
	var collector *otlptest.Collector
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
		OTLPAt: func(at netip.Addr) string {
			collector = otlptest.Start(t, s3proxy.ListenAt(t, at))
			return collector.URL
		}})
	tar := fleettest.ImageTar(t)
	sizes := []int64{1, 100}
	pauses := map[int64][]time.Duration{}
	server := map[int64][]time.Duration{}
	machines := map[int64]api.Machine{}
	for _, gib := range sizes {
		machines[gib] = pauseMachine(t, f, tar, gib)
	}
	for i := range moves {
		order := slices.Clone(sizes) // in turn, and each first as often: both see the same weather
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, gib := range order {
			p, s := move(t, f, machines[gib].ID)
			time.Sleep(500 * time.Millisecond) // the pools fill up again
			pauses[gib] = append(pauses[gib], p)
			server[gib] = append(server[gib], s)
		}
	}
	for _, gib := range sizes {
		report(fmt.Sprintf("pause seen by a client, %3d GiB disk", gib), pauses[gib])
		report(fmt.Sprintf("  of it by the server's own clock, %3d GiB", gib), server[gib])
	}
	small, large := percentile(pauses[1], 50), percentile(pauses[100], 50)
	fmt.Printf("RESULT pause p50 of a 100 GiB disk / of a 1 GiB disk: %.2f\n",
		float64(large)/float64(small))
	time.Sleep(2 * time.Second) // what was told last arrives
	traced, _ := collector.Traces()
	breakdown(traced)
}

// TestPausePerMoveOfRuntimes measures the same of a VM that has a kernel of its own beside one that
// has none, by turns: two fleets on one host.
func TestPausePerMoveOfRuntimes(t *testing.T) {
	const moves = 5 // each boots a kernel, without KVM by translation
	tar, runtimes := fleettest.ImageTar(t), []string{"sandbox", "qemu"}
	fleets, machines := map[string]*fleettest.Fleet{}, map[string]api.Machine{}
	pauses, server := map[string][]time.Duration{}, map[string][]time.Duration{}
	for _, runtime := range runtimes {
		fleets[runtime] = fleettest.Start(t,
			fleettest.Options{Workers: 2, Pool: 1, Runtime: runtime})
		machines[runtime] = pauseMachine(t, fleets[runtime], tar, 1)
	}
	for i := range moves {
		order := slices.Clone(runtimes)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, runtime := range order {
			p, s := move(t, fleets[runtime], machines[runtime].ID)
			// the pools fill up again, and take no part in the next measurement
			time.Sleep(5 * time.Second)
			pauses[runtime], server[runtime] = append(pauses[runtime], p),
				append(server[runtime], s)
		}
	}
	for _, runtime := range runtimes {
		report("pause seen by a client, runtime "+runtime, pauses[runtime])
		report("  of it by the server's own clock, runtime "+runtime, server[runtime])
	}
	w, err := fleets["qemu"].Worker(t.Context(), "w1")
	if err != nil || w.Acceleration == "" {
		t.Fatalf("w1 tells no acceleration: %v", err)
	}
	fmt.Printf("RESULT pause p50, qemu by %s / sandbox: %.1f\n", w.Acceleration,
		float64(percentile(pauses["qemu"], 50))/float64(percentile(pauses["sandbox"], 50)))
}

// pauseMachine makes a machine on w1 with a disk of some GiB, a page to serve and 32 MiB of data.
func pauseMachine(t *testing.T, f *fleettest.Fleet, tar []byte, gib int64) api.Machine {
	t.Helper()
	image := fmt.Sprintf("disk%d", gib)
	if _, err := f.CreateImage(t.Context(), image, gib<<30, bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	cfg := httpdConfig()
	cfg.Image = image
	m := f.Create(fmt.Sprintf("m%d", gib), fmt.Sprintf("net%d", gib), "w1", cfg)
	f.Run(m.ID, "sh", "-c",
		"echo hello > /srv/index.html && head -c 33554432 /dev/urandom > /data/random && sync")
	return m
}

// move migrates a machine to wherever the planner says, and returns the client's and the server's
// pause.
func move(t *testing.T, f *fleettest.Fleet, id string) (time.Duration, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	mv, err := f.MigrateMachine(ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	longest, last, ended := time.Duration(0), time.Now(), time.Time{}
	for ended.IsZero() || time.Since(ended) < 100*time.Millisecond {
		if answers(ctx, f, id) {
			longest = max(longest, time.Since(last))
			last = time.Now()
		} else if ctx.Err() != nil {
			t.Fatal("no answer after the move")
		}
		if ended.IsZero() {
			if now, err := f.Move(ctx, mv.ID); err == nil &&
				(now.Step == "done" || now.Step == "undone") {
				mv, ended = now, time.Now()
			}
		}
	}
	if mv.Step != "done" {
		t.Fatalf("move ended as %s: %s", mv.Step, mv.Error)
	}
	return longest, time.Duration(mv.PauseMS * float64(time.Millisecond))
}

// httpdConfig is a machine with an HTTP service that takes next to no time to start.
func httpdConfig() api.MachineConfig {
	return api.MachineConfig{Image: fleettest.Image, CPUs: 0.5, MemoryMiB: 128,
		Services: []api.Service{{Name: "web", Cmd: []string{"/bin/busybox", "httpd", "-f", "-p",
			"8080", "-h", "/srv"}, HTTPPort: 8080,
			Check: &api.Check{Kind: "tcp", Port: 8080}}}}
}

// answers asks the machine's service for its page.
func answers(ctx context.Context, f *fleettest.Fleet, id string) bool {
	resp, err := f.Do(ctx, id, client.PortRequest{Port: 8080, Path: "/index.html"})
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	return err == nil && resp.StatusCode == 200 && string(body) == "hello\n"
}

// TestCreateToFirstExec measures from asking for a machine to the first answer of a command in it.
func TestCreateToFirstExec(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 2})
	var took []time.Duration
	for i := range 20 {
		cfg := api.MachineConfig{Image: fleettest.Image, CPUs: 0.25, MemoryMiB: 128}
		started := time.Now()
		m, err := f.CreateMachine(t.Context(), api.CreateMachine{Name: fmt.Sprintf("m%d", i),
			App: "bench", Network: "green", Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if out, err := f.TryRun(t.Context(), m.ID, "echo", "hello"); err == nil &&
				strings.TrimSpace(out) == "hello" {
				break
			}
			time.Sleep(time.Millisecond)
		}
		took = append(took, time.Since(started))
		if err := f.DestroyMachine(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // the pool fills up again
	}
	report("create to first exec answer", took)
}

// TestDrainOfThirty measures the wall time of draining a worker with thirty machines in ten
// networks.
func TestDrainOfThirty(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 3, Pool: 2, MemoryMiB: 32768})
	for i := range 30 {
		cfg := httpdConfig()
		cfg.CPUs = 0.25
		f.Create(fmt.Sprintf("m%d", i), fmt.Sprintf("net%d", i%10), "w1", cfg)
	}
	f.CountTraffic()
	before := f.Traffic()
	started := time.Now()
	d, err := f.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	d = f.WaitDrain(d.ID, 5*time.Minute)
	wall := time.Since(started)
	moved := f.Traffic().Sub(before)
	var pauses []time.Duration
	var copied int64
	for _, m := range d.Moves {
		pauses = append(pauses, time.Duration(m.PauseMS*float64(time.Millisecond)))
		copied += m.DiskBytesCopied
	}
	report("pause per move in a drain of 30, server's clock", pauses)
	fmt.Printf("RESULT drain of %d machines in 10 networks: %.1f s wall, disk bytes copied %d\n",
		len(d.Moves), wall.Seconds(), copied)
	fmt.Printf(
		"RESULT on the wire meanwhile, by packet counters: %d bytes from worker to worker, %d bytes from workers to the server\n",
		moved.BetweenWorkers, moved.Total-moved.BetweenWorkers)
	var requests, read, written int64
	for _, m := range d.Moves {
		now, err := f.Machine(t.Context(), m.Machine)
		if err != nil {
			t.Fatal(err)
		}
		requests, read, written = requests+now.Disk.Requests, read+now.Disk.BytesRead,
			written+now.Disk.BytesWritten
	}
	n := float64(len(d.Moves))
	fmt.Printf(
		"RESULT asked of the store since the new attach, per machine: %.0f requests, %.0f KiB read, %.1f KiB written\n",
		float64(requests)/n, float64(read)/n/1024, float64(written)/n/1024)
}

func report(what string, d []time.Duration) {
	fmt.Printf("RESULT %s: p50 %s, p99 %s, n=%d\n", what,
		percentile(d, 50).Round(100*time.Microsecond),
		percentile(d, 99).Round(100*time.Microsecond), len(d))
}

func percentile(d []time.Duration, p int) time.Duration {
	s := slices.Clone(d)
	slices.Sort(s)
	return s[min(len(s)-1, len(s)*p/100)]
}
