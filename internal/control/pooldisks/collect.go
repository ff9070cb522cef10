package pooldisks

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/disk/gc"
)

// Garbage is the collector of a pool. Safe for concurrent use.
type Garbage struct {
	store blob.Store
	grace time.Duration
}

var _ control.Garbage = (*Garbage)(nil)

// NewGarbage returns the collector of the pool in store. What is found unreachable is deleted a
// grace later.
func NewGarbage(store blob.Store, grace time.Duration) *Garbage {
	return &Garbage{store: store, grace: grace}
}

// Collect implements control.Garbage.
func (g *Garbage) Collect(ctx context.Context) (string, error) {
	r, err := gc.Collect(ctx, g.store, gc.Options{Grace: g.grace})
	if r == nil {
		return "nothing", err
	}
	freed, waiting := r.Freed.Total(), r.Waiting.Total()
	return fmt.Sprintf("freed %d objects of %d bytes; %d of %d bytes are waiting; %d disks",
		freed.Objects, freed.Bytes,
		waiting.Objects, waiting.Bytes, r.Disks), err
}
