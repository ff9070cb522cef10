package disk

import (
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
