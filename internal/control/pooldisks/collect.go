package pooldisks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/disk/gc"
)

// Garbage is the collector of a pool. Safe for concurrent use.
type Garbage struct {
	store blob.Store
	grace time.Duration
	log   *slog.Logger
}

var _ control.Garbage = (*Garbage)(nil)

// NewGarbage returns the collector of the pool in store. What is found unreachable is deleted a
// grace later.
func NewGarbage(store blob.Store, grace time.Duration, log *slog.Logger) *Garbage {
	return &Garbage{store: store, grace: grace, log: log}
}

// Collect implements control.Garbage.
func (g *Garbage) Collect(ctx context.Context) (string, error) {
	r, err := gc.Collect(ctx, g.store, gc.Options{Grace: g.grace})
	if r == nil {
		return "nothing", err
	}
	freed, waiting := r.Freed.Total(), r.Waiting.Total()
	did := fmt.Sprintf("freed %d objects of %d bytes; %d of %d bytes are waiting; %d disks",
		freed.Objects, freed.Bytes,
		waiting.Objects, waiting.Bytes, r.Disks)
	for i := range r.Doubtful {
		d := &r.Doubtful[i]
		g.log.WarnContext(ctx, "an object of a disk makes no sense, so that nothing of the disk, "+
			"and of what it descends from, is collected", "object", d.Object, "disk", d.Disk,
			"why", d.Why, "nothing_of_the_pool", d.HoldsAll, "remedy", d.Remedy)
	}
	if r.Doubts > 0 {
		did += fmt.Sprintf("; %d objects make no sense", r.Doubts)
	}
	return did, err
}
