package benchmark_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/benchmark"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func config(store blob.Store) benchmark.Config {
	return benchmark.Config{Store: store, Path: "disks/bench", Size: benchmark.MinSize,
		Duration: 20 * time.Millisecond}
}

func keys(t *testing.T, store blob.Store) (all []string) {
	t.Helper()
	if err := store.List(context.Background(), "", "", func(e blob.Entry) bool {
		all = append(all, e.Key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRunMeasuresAndLeavesNothing(t *testing.T) {
	store := memblob.New()
	cfg, begun := config(store), 0
	cfg.Step = func(_ string, n, of int) {
		if begun++; n != begun || n > of {
			t.Errorf("step %d of %d after %d others", n, of, begun-1)
		}
	}
	results, err := benchmark.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != begun || begun < 10 {
		t.Errorf("%d results of %d steps", len(results), begun)
	}
	compared := 0
	for _, r := range results {
		if r.Ops == 0 || r.P50MS <= 0 || r.P99MS < r.P50MS || r.OpsPerSec <= 0 {
			t.Errorf("%+v", r)
		}
		if r.Against != "" {
			if compared++; r.Ratio <= 0 {
				t.Errorf("%+v", r)
			}
		}
	}
	if compared != 4 {
		t.Errorf("%d figures stand beside the store's", compared)
	}
	if left := keys(t, store); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestInterruptLeavesNothing(t *testing.T) {
	store := memblob.New()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := config(store)
	cfg.Step = func(_ string, n, _ int) {
		if n == 8 {
			cancel()
		}
	}
	if _, err := benchmark.Run(ctx, cfg); err == nil {
		t.Error("an interrupted run ended without an error")
	}
	if left := keys(t, store); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestAnExistingDiskIsRefused(t *testing.T) {
	store := memblob.New()
	if _, err := disk.Create(t.Context(), store, "disks/bench",
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	before := len(keys(t, store))
	if _, err := benchmark.Run(t.Context(), config(store)); !errs.Is(err, errs.Exists) {
		t.Errorf("got %v", err)
	}
	if len(keys(t, store)) != before {
		t.Error("a refused run has changed the store")
	}
}

func TestOddConfigIsRefused(t *testing.T) {
	for name, change := range map[string]func(*benchmark.Config){
		"small":    func(c *benchmark.Config) { c.Size = 1 << 20 },
		"unwhole":  func(c *benchmark.Config) { c.Size++ },
		"no time":  func(c *benchmark.Config) { c.Duration = 0 },
		"for ever": func(c *benchmark.Config) { c.Duration = time.Hour },
	} {
		cfg := config(memblob.New())
		change(&cfg)
		if _, err := benchmark.Run(t.Context(), cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
