package disk_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
)

// slowTail answers after 10 ms, and one time in fifty after 400 ms.
func slowTail(seed uint64) func() time.Duration {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(50) == 0 {
			return 400 * time.Millisecond
		}
		return 10*time.Millisecond + time.Duration(rng.IntN(2000))*time.Microsecond
	}
}

// coldReads reads 64 KiB frames one after another, each once, over a store with a latency of its
// own.
func coldReads(t *testing.T, latency func() time.Duration,
	tune disk.Tuning) ([]time.Duration, disk.Stats) {
	t.Helper()
	const frames, frame = 1000, 64 << 10
	ctx, store := t.Context(), memblob.New()
	create(t, store, path, frames*frame)
	d := attach(t, store, path, 1)
	rng, data := rand.New(rand.NewPCG(1, 1)), make([]byte, frame)
	for i := range int64(frames) {
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		if err := d.WriteAt(ctx, data, i*frame); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	tune.ReadAhead, tune.BootWindow, tune.Revalidate, tune.FrameBytes = -1, -1, -1, 1<<20
	d, err := disk.Attach(ctx, decorate.LatencyFunc(store, latency), path,
		disk.AttachOptions{Generation: 2, Tuning: tune})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abandon()
	took := make([]time.Duration, 0, frames)
	for _, i := range rng.Perm(frames) {
		start := time.Now()
		if err := d.ReadAt(ctx, data[:4096], int64(i)*frame); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, d.Stats()
}

// TestHedgedReads: a second request cuts the tail, and costs few requests, also when the store as a
// whole is slower than it was.
func TestHedgedReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain, ps := coldReads(t, slowTail(1), disk.Tuning{NoHedge: true})
		hedged, hs := coldReads(t, slowTail(1), disk.Tuning{})
		p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
		t.Logf(
			"p99 of a cold read: %v, hedged %v; %d requests, hedged %d of which %d a second time, %d of them answered first",
			p99(plain), p99(hedged), ps.Gets, hs.Gets, hs.Hedges, hs.HedgeWins)
		if ps.Hedges != 0 || p99(plain) < 400*time.Millisecond {
			t.Errorf("without hedging: %d hedges, p99 %v; this proves nothing",
				ps.Hedges, p99(plain))
		}
		if p99(hedged) > 40*time.Millisecond || hs.HedgeWins == 0 {
			t.Errorf("p99 %v hedged, %d wins", p99(hedged), hs.HedgeWins)
		}
		if hs.Hedges*20 > hs.Gets {
			t.Errorf("%d of %d requests were second ones", hs.Hedges, hs.Gets)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		_, s := coldReads(t, func() time.Duration {
			if n.Add(1) > 300 {
				return 200 * time.Millisecond
			}
			return 10 * time.Millisecond
		}, disk.Tuning{})
		if s.Hedges*20 > s.Gets {
			t.Errorf("a slow store was asked %d of %d times a second time", s.Hedges, s.Gets)
		}
	})
}
