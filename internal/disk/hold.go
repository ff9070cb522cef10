package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Hold is a pin of everything of a disk and its lineage. What is read of the disk under it, and
// what that refers to, isn't collected until Release. Safe for concurrent use.
type Hold struct {
	pin   *pin
	tasks *tasks
}

// TakeHold pins all of the disk at path, and renews the pin in the background. The pin lasts for
// lease if this process dies; 0: the usual time. Holder is for people. Errors: Invalid, Denied (it
// may not write to the store), Unavailable.
func TakeHold(
	ctx context.Context, store blob.Store, path, holder string, lease time.Duration,
) (*Hold, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	t := Tuning{PinLease: lease}.withDefaults(false)
	p, err := takePin(ctx, oneShot(store), path, holder, t.PinLease)
	if err != nil {
		return nil, err
	}
	h := &Hold{pin: p, tasks: newTasks(ctx)}
	h.tasks.spawn(p.keep)
	return h, nil
}

// Key returns the key of the pin's object.
func (h *Hold) Key() string { return h.pin.key }

// Valid returns nil while collectors must heed the hold. Conflict: the hold was lost, and what was
// read may have been deleted.
func (h *Hold) Valid() error { return h.pin.valid() }

// Release ends the hold. One whose pin can't be removed ends with its lease.
func (h *Hold) Release(ctx context.Context) {
	h.tasks.stop()
	h.pin.release(ctx)
}
