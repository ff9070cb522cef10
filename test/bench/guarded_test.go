//go:build bench

package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	guardedRounds = 40
	guardedCalls  = 100 // of each round
)

// guardedPair is two fleets on one host, in the same run: one as fleets are, and one that is in the
// clear where that can be had: on its clients' way to the server on loopback. Between server and
// workers there is no such way.
func guardedPair(t *testing.T) []*fleettest.Fleet {
	return []*fleettest.Fleet{
		fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1}),
		fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1,
			Args: []string{"--insecure-loopback"}}),
	}
}

// TestCostOfTheGuard prints what TLS costs clients. It fails by no figure.
func TestCostOfTheGuard(t *testing.T) {
	fleets := guardedPair(t)
	machines := make([]api.Machine, 2)
	for i, f := range fleets {
		machines[i] = f.Create("m", "blue", "w1",
			api.MachineConfig{Image: fleettest.Image, CPUs: 1, MemoryMiB: 128})
	}
	execs, calls := make([][]float64, 2), make([][]float64, 2)
	for n := range 2 * guardedRounds {
		i := (n + n/2) % 2 // each is first as often as the other
		began := time.Now()
		fleets[i].Run(machines[i].ID, "true")
		execs[i] = append(execs[i], ms(time.Since(began)))
		began = time.Now()
		for range guardedCalls {
			if _, err := fleets[i].Machine(t.Context(), machines[i].ID); err != nil {
				t.Fatal(err)
			}
		}
		calls[i] = append(calls[i], ms(time.Since(began))/guardedCalls)
	}
	guarded("exec of a command, ms", execs)
	guarded("one call of the API, ms", calls)
}

// guarded prints the medians of both, and what one is of the other.
func guarded(what string, v [][]float64) {
	median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
	fmt.Printf("RESULT %s: guarded %.2f, in the clear %.2f, n=%d, ratio %.3f\n", what, median(v[0]),
		median(v[1]), len(v[0]), median(v[0])/median(v[1]))
}
