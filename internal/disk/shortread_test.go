package disk_test

import (
	"context"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
)

// cutting cuts the first answer for every key.
type cutting struct {
	blob.Store
	mu   sync.Mutex
	seen map[string]bool
}

func (c *cutting) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	obj, err := c.Store.Get(ctx, key, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && !c.seen[key] {
		c.seen[key] = true
		obj.Data = obj.Data[:len(obj.Data)/2]
	}
	return obj, err
}

// TestShortReadsAreRepeated attaches after a crash over a store that cuts answers. A cut answer
// says nothing about what is stored: it must neither fail an attach nor stop a disk as corrupt.
func TestShortReadsAreRepeated(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1)
	for b := range 5 {
		if err := put(t, ctx, d, b, uint64(b+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := put(t, ctx, d, 9, 9); err != nil {
		t.Fatal(err)
	}
	d.Abandon()
	d = attach(t, &cutting{Store: s.client(), seen: map[string]bool{}}, path, 2)
	for _, b := range []int{0, 4, 9} {
		if n, err := get(ctx, d, b); err != nil || n != uint64(min(b+1, 9)) {
			t.Errorf("block %d: %d, %v", b, n, err)
		}
	}
	if _, err := d.Checkpoint(ctx, "d"); err != nil {
		t.Error(err)
	}
	r, err := disk.OpenReadOnly(ctx, &cutting{Store: s.client(), seen: map[string]bool{}}, path,
		"d", disk.ReadOnlyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := get(ctx, r, 9); err != nil || n != 9 {
		t.Errorf("read-only: %d, %v", n, err)
	}
	mustClose(t, d)
}
