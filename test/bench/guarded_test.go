//go:build bench

package bench

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	guardedRounds = 40
	guardedCalls  = 100 // of each round
	wireRounds    = 5
	wireMiB       = 256
)

// guardedPair is two fleets on one host, in the same run: one as fleets are, and one that is in the
// clear where that can be had: its machines' wire, and its clients' way to the server on loopback.
// Between server and workers there is no such way.
func guardedPair(t *testing.T) []*fleettest.Fleet {
	return []*fleettest.Fleet{
		fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1}),
		fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
			Args: []string{"--insecure-loopback"}, WorkerArgs: []string{"--tunnel", "off"}}),
	}
}

// TestCostOfTheGuard prints what TLS costs clients, and WireGuard machines. It fails by no figure.
func TestCostOfTheGuard(t *testing.T) {
	fleets := guardedPair(t)
	machines := make([][2]api.Machine, 2)
	for i, f := range fleets {
		cfg := api.MachineConfig{Image: fleettest.Image, CPUs: 1, MemoryMiB: 128}
		for n, worker := range []string{"w1", "w2"} {
			machines[i][n] = f.Create(fmt.Sprintf("m%d", n), "blue", worker, cfg)
		}
	}
	execs, calls, wire := make([][]float64, 2), make([][]float64, 2), make([][]float64, 2)
	for n := range 2 * guardedRounds {
		i := (n + n/2) % 2 // each is first as often as the other
		began := time.Now()
		fleets[i].Run(machines[i][0].ID, "true")
		execs[i] = append(execs[i], ms(time.Since(began)))
		began = time.Now()
		for range guardedCalls {
			if _, err := fleets[i].Machine(t.Context(), machines[i][0].ID); err != nil {
				t.Fatal(err)
			}
		}
		calls[i] = append(calls[i], ms(time.Since(began))/guardedCalls)
	}
	for n := range 2 * wireRounds {
		i := (n + n/2) % 2
		wire[i] = append(wire[i], transfer(t, fleets[i], machines[i]))
	}
	guarded("exec of a command, ms", execs)
	guarded("one call of the API, ms", calls)
	guarded("machine to machine on another worker, MiB/s", wire)
}

// transfer sends wireMiB from one machine to another, and returns MiB/s.
func transfer(t *testing.T, f *fleettest.Fleet, m [2]api.Machine) float64 {
	t.Helper()
	f.Run(m[1].ID, "sh", "-c", "nc -l -p 9000 > /dev/null 2>&1 < /dev/null &")
	to, err := f.Machine(t.Context(), m[1].ID)
	if err != nil {
		t.Fatal(err)
	}
	out := f.Run(m[0].ID, "sh", "-c", fmt.Sprintf(
		`cut -d' ' -f1 /proc/uptime; dd if=/dev/zero bs=1M count=%d 2>/dev/null | nc %s 9000; cut -d' ' -f1 /proc/uptime`,
		wireMiB, net.ParseIP(to.PrivateIP)))
	var at []float64
	for _, word := range strings.Fields(out) {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		at = append(at, v)
	}
	if len(at) != 2 || at[1] <= at[0] {
		t.Fatalf("%q", out)
	}
	return wireMiB / (at[1] - at[0])
}

// guarded prints the medians of both, and what one is of the other.
func guarded(what string, v [][]float64) {
	median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
	fmt.Printf("RESULT %s: guarded %.2f, in the clear %.2f, n=%d, ratio %.3f\n", what, median(v[0]),
		median(v[1]), len(v[0]), median(v[0])/median(v[1]))
}
