package disk

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
)

const (
	maxTraceBlocks = 16 << 10 // 64 MiB of content
	traceReaders   = 32       // runs prefetched at a time
)

// bootTrace records which blocks were read first after an attach, each once, in that order. The
// next attach reads exactly those ahead: what a machine touches while it starts is much the same
// each time.
type bootTrace struct {
	mu     sync.Mutex
	seen   map[uint64]uint64 // bits of 64 blocks
	blocks int
	runs   []format.BlockRun
	ended  bool
}

// note records a read.
func (t *bootTrace) note(from, to uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	for b := from; b < to && t.blocks < maxTraceBlocks; b++ {
		word, bit := b/64, uint64(1)<<(b%64)
		if t.seen[word]&bit != 0 {
			continue
		}
		t.seen[word] |= bit
		t.blocks++
		if n := len(t.runs); n > 0 && t.runs[n-1].LBA+t.runs[n-1].Count == b {
			t.runs[n-1].Count++
			continue
		}
		if len(t.runs) == format.MaxTraceRuns {
			return
		}
		t.runs = append(t.runs, format.BlockRun{LBA: b, Count: 1})
	}
}

// end stops recording and hands the trace over, once.
func (t *bootTrace) end() []format.BlockRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	runs := t.runs
	t.ended, t.seen, t.runs = true, nil, nil
	return runs
}

// traceLoop saves the trace when the boot window has passed.
func (d *Disk) traceLoop(ctx context.Context) {
	t := time.NewTimer(d.opts.BootWindow)
	defer t.Stop()
	if d.due(ctx, nil, t.C) {
		d.saveTrace(ctx)
	}
}

// saveTrace stores what was recorded; the next swap of the head points at it. A trace that is lost
// costs the next boot some time and nothing else.
func (d *Disk) saveTrace(ctx context.Context) {
	runs := d.reader.trace.end()
	if len(runs) == 0 {
		return
	}
	if err := d.store.PutNew(ctx, traceKey(d.path, d.epoch), format.EncodeTrace(runs)); err != nil {
		d.opts.Logger.Debug("boot trace not saved", "disk", d.path, "error", err.Error())
		return
	}
	d.mapping.traced.Store(true)
}

// warmTrace brings the blocks of the trace under key into the cache, in the trace's order. Errors
// are left to the reader who comes for the blocks. It ends with the first refusal, after which each
// of hundreds of requests would be refused.
func warmTrace(ctx context.Context, client *store.Client, key string, rd *reader) {
	obj, err := client.Get(ctx, key, blob.All())
	if err != nil {
		return
	}
	runs, err := format.DecodeTrace(obj.Data)
	if err != nil {
		return
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(traceReaders)
	for _, r := range runs {
		if ctx.Err() != nil || r.LBA+r.Count > rd.blocks.Load() {
			break
		}
		g.Go(func() error {
			return rd.warm(ctx, r.LBA, r.LBA+r.Count)
		})
	}
	_ = g.Wait() // a refusal, which the reader meets, too
}
