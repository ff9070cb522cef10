package disk_test

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
)

// gauge counts the reads, and how many were under way at a time.
type gauge struct {
	blob.Store
	mu        sync.Mutex
	now, most int
	gets      int
}

func (g *gauge) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	g.mu.Lock()
	g.now++
	g.gets++
	g.most = max(g.most, g.now)
	g.mu.Unlock()
	time.Sleep(2 * time.Millisecond)
	defer func() {
		g.mu.Lock()
		g.now--
		g.mu.Unlock()
	}()
	return g.Store.Get(ctx, key, r)
}

// TestScatteredFileIsReadOnce: a file that grew by a small fsync at a time is in as many objects.
// Who boots and reads it asks for each once, and for few at a time.
func TestScatteredFileIsReadOnce(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	const blocks = 3000
	create(t, s.client(), path, 64<<20)
	d := attach(t, s.client(), path, 1)
	for i := range int64(blocks) {
		if err := d.WriteAt(ctx, bytes.Repeat([]byte{byte(i), 1}, 2048), i*4096); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	for gen := uint64(2); gen < 4; gen++ { // the second one has the boot trace of the first
		g := &gauge{Store: s.client()}
		dev, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		d, err := disk.Attach(ctx, g, path,
			disk.AttachOptions{Generation: gen, Holder: "a", Cache: dev})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 128<<10)
		for off := int64(0); off < blocks*4096; off += int64(len(buf)) {
			if err := d.ReadAt(ctx, buf, off); err != nil {
				t.Fatal(err)
			}
		}
		// 64 ahead, the 32 of the one read, and a few asked a second time
		if hedges := int(d.Stats().Hedges); g.gets-hedges > blocks*5/4 || g.most > 128 {
			t.Errorf("%d gets of %d objects (%d a second time), up to %d at a time", g.gets, blocks,
				hedges, g.most)
		}
		mustClose(t, d)
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
