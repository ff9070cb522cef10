//go:build bench

package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
	"github.com/sluice-platform/sluice/test/otlptest"
)

const (
	seenMoves   = 30
	seenWindows = 12
	seenWindow  = 5 * time.Second
	seenIdle    = 2 * time.Minute
	// scrapeEvery is as often as Prometheus is mostly told to.
	scrapeEvery = 15 * time.Second
)

// TestCostOfBeingSeen prints what metrics and traces cost: of two fleets on one host, in the same
// run, one exports traces to a collector and has each process scraped, and of the other nobody asks
// anything. Counting itself can't be switched off; BenchmarkRequest says what that takes. The pause
// is measured by turns, and flushes and idle processor time of both in the same windows. It fails
// by no figure: those of a busy host say little, and the ratio is in the output.
func TestCostOfBeingSeen(t *testing.T) {
	var collector *otlptest.Collector
	seen := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
		OTLPAt: func(at netip.Addr) string {
			collector = otlptest.Start(t, s3proxy.ListenAt(t, at))
			return collector.URL
		}})
	unseen := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1})
	fleets := []*fleettest.Fleet{seen, unseen}
	stop := scrape(t, seen)
	defer stop()

	time.Sleep(idleSettle)
	before := []int64{fleetTicks(t, seen), fleetTicks(t, unseen)}
	time.Sleep(seenIdle)
	idle := func(i int) float64 { return float64(fleetTicks(t, fleets[i]) - before[i]) }
	compared("idle processor time, ticks of 10 ms", []float64{idle(0)}, []float64{idle(1)})

	tar := fleettest.ImageTar(t)
	machines := []api.Machine{pauseMachine(t, seen, tar, 1), pauseMachine(t, unseen, tar, 1)}
	pauses := make([][]float64, 2)
	for n := range 2 * seenMoves {
		i := (n + n/2) % 2 // each is first as often as the other
		_, pause := move(t, fleets[i], machines[i].ID)
		time.Sleep(500 * time.Millisecond) // the pools fill up again
		pauses[i] = append(pauses[i], float64(pause.Microseconds())/1000)
	}
	compared("pause by the server's clock, ms", pauses[0], pauses[1])

	cfg := fleettest.LedgerConfig()
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "1ms")
	flushes, acked := make([][]float64, 2), make([]uint64, 2)
	for i, f := range fleets {
		machines[i] = f.Create("ledger", "blue", "w1", cfg)
	}
	for n := range seenWindows + 1 {
		for i, f := range fleets {
			now, err := f.Ledger(t.Context(), machines[i].ID, "acked")
			if err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				flushes[i] = append(flushes[i],
					float64(seenWindow.Milliseconds())/float64(now-acked[i]))
			}
			acked[i] = now
		}
		time.Sleep(seenWindow)
	}
	compared("one fsync of a ledger and its pause of 1 ms, ms", flushes[0], flushes[1])
	moves, _ := collector.Traces()
	if len(moves) < seenMoves {
		t.Errorf("%d moves were traced, want %d", len(moves), seenMoves)
	}
}

// compared prints the medians of both, and what one is of the other.
func compared(what string, on, off []float64) {
	median := func(v []float64) float64 {
		v = slices.Sorted(slices.Values(v))
		return v[len(v)/2]
	}
	fmt.Printf("RESULT %s: seen %.1f, unseen %.1f, n=%d, ratio %.3f\n", what, median(on),
		median(off), len(on), median(on)/median(off))
}

// scrape asks each process of a fleet for its metrics, as Prometheus does, until it is stopped.
func scrape(t *testing.T, f *fleettest.Fleet) (stop func()) {
	t.Helper()
	state, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(scrapeEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for _, h := range state.Workers {
				body, err := f.HostRequest(t.Context(), h.Name, http.MethodGet, "/metrics")
				if err != nil || !strings.Contains(string(body), "sluice_build_info") {
					t.Errorf("scrape of %s: %v", h.Name, err)
				}
			}
			scrapeServer(t, f, state.ServerURL)
		}
	}()
	return func() { close(done); <-over }
}

func scrapeServer(t *testing.T, f *fleettest.Fleet, url string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Error(err)
		return
	}
	token, err := os.ReadFile(filepath.Join(f.Dir, "operator.token"))
	if err != nil {
		t.Error(err)
		return
	}
	browser := f.Browser(strings.TrimSpace(string(token)))
	defer browser.CloseIdleConnections()
	resp, err := browser.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("scrape of the server: %s, %v", resp.Status, err)
	}
}

// fleetTicks is the processor time that a fleet's server and workers have used.
func fleetTicks(t *testing.T, f *fleettest.Fleet) int64 {
	t.Helper()
	state, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	sum := processorTicks(t, state.Server.PID)
	for _, h := range state.Workers {
		sum += processorTicks(t, h.Process.PID)
	}
	return sum
}
