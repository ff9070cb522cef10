//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	guardedRounds = 40
	guardedCalls  = 100 // of each round
)

// guardedWay is a way to one and the same server and machine: guarded, or in the clear.
type guardedWay struct {
	url  string
	file client.FleetFile
	warm *client.Client // keeps its connections
	t    *testing.T
}

func (w guardedWay) client() *client.Client {
	c, err := client.New(w.url, w.file.Token, client.WithCA(w.file.CA))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// TestCostOfTheGuard prints what TLS costs clients: the same server is asked over TLS and, on its
// loopback, in the clear. Between server and workers there is TLS either way, as there is no other.
// It fails by no figure.
func TestCostOfTheGuard(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1,
		Args: []string{"--insecure-loopback"}})
	m := f.Create("m", "blue", "w1",
		api.MachineConfig{Image: fleettest.Image, CPUs: 1, MemoryMiB: 128})
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	file, err := client.ReadFleetFile(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(f.Dir, client.CAFileName)
	ways := []guardedWay{{url: s.BridgeURL, file: file, t: t}, {url: s.ServerURL, file: file, t: t}}
	for i := range ways {
		ways[i].warm = ways[i].client()
	}
	for _, row := range []struct {
		what string
		per  int
		do   func(w guardedWay)
	}{
		{"call of the API, over an open connection, ms", guardedCalls, func(w guardedWay) {
			for range guardedCalls {
				if _, err := w.warm.Machine(t.Context(), m.ID); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"exec by a client with an open connection, ms", 1, func(w guardedWay) {
			execTrue(t, w.warm, m.ID)
		}},
		{"exec by a client without one, ms", 1, func(w guardedWay) {
			execTrue(t, w.client(), m.ID)
		}},
		{"sluice machine exec, the whole process, ms", 1, func(w guardedWay) {
			env := append(os.Environ(), "SLUICE_DIR=", "SLUICE_URL="+w.url,
				"SLUICE_TOKEN="+file.Token, "SLUICE_CA_FILE="+ca)
			r := fleettest.Run(t, f.Binary(), env, nil, "machine", "exec", m.ID, "true")
			if r.Code != 0 {
				t.Fatal(r.Stderr)
			}
		}},
	} {
		took := make([][]float64, len(ways))
		for n := range len(ways) * guardedRounds {
			i := (n + n/2) % 2 // each is first as often as the other
			if _, err := ways[i].warm.Machine(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			row.do(ways[i])
			took[i] = append(took[i], ms(time.Since(began))/float64(row.per))
		}
		guarded(row.what, took)
	}
}

func execTrue(t *testing.T, c *client.Client, machine string) {
	code, err := c.RunExec(context.Background(), machine, client.Exec{Cmd: []string{"true"}})
	if err != nil || code != 0 {
		t.Fatal(code, err)
	}
}

// guarded prints the medians of both, and what one is of the other.
func guarded(what string, v [][]float64) {
	median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
	fmt.Printf("RESULT %s: guarded %.2f, in the clear %.2f, n=%d, ratio %.3f\n", what, median(v[0]),
		median(v[1]), len(v[0]), median(v[0])/median(v[1]))
}
