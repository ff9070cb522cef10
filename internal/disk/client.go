package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/store"
)

// Stall tells of a store that doesn't complete what a disk waits for.
type Stall = store.Stall

// newClient returns what makes the requests of a disk.
func newClient(s blob.Store, t Tuning) *store.Client {
	return store.New(s, store.Config{
		InFlight: t.InFlight, OpTimeout: t.OpTimeout, Bound: t.StallTimeout,
	})
}

// oneShot returns a client for the functions that need no attachment. It waits by default.
func oneShot(s blob.Store) *store.Client { return newClient(s, Tuning{}.withDefaults(false)) }

// Stalled returns what the store has not completed for StallAfter or longer, or nil if it does what
// it is asked for. The channel is closed when that changes. During a stall, writes are kept in
// memory, up to DirtyBytes. Whoever needs the store waits, up to StallTimeout. A stall ends by
// itself.
func (d *Disk) Stalled() (*Stall, <-chan struct{}) { return d.store.Stalled() }

// HoldIO(true) suspends StallTimeout: use it while every user of the device is frozen. No request
// fails meanwhile because the store was waited for too long. Idempotent.
func (d *Disk) HoldIO(on bool) { d.store.HoldIO(on) }

// probeStore makes a small request in the background, whose answer ends a stall: for the head, or
// for the identity of the log.
func (d *Disk) probeStore(ofLog bool) {
	d.tasks.spawn(func(ctx context.Context) {
		if ofLog {
			_, _ = d.logStore.Exists(ctx, identityKey(d.logPlace.uid))
			return
		}
		_ = d.revalidate(ctx) // it stops the disk where it must
	})
}
