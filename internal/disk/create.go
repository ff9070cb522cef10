package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// MaxSize is the largest disk, in bytes.
const MaxSize = format.MaxSize

// CreateOptions describes a new disk.
type CreateOptions struct {
	ID   string // the owner's name for it; the path's last element if empty
	Size int64  // bytes; a multiple of BlockSize up to MaxSize
	Key  KEK    // nil: the disk is in the clear; else it is encrypted, and this wraps its key
	// Bound makes a disk of mode bounded: a local journal may acknowledge a flush while the store
	// lacks no write older than this. Between 100 ms and 1 h, in whole milliseconds; 0: a durable
	// disk.
	Bound time.Duration
	// LogURL is where the log is, if it is in a second store; OpenLog opens that.
	LogURL  string
	OpenLog OpenStore
	// Pool is the URL of the store that the disk is in. Its log store keeps it, to tell a copy of
	// the disk from the disk. See ElsewhereLog.
	Pool string
}

// Create makes an empty disk at path in the pool. It costs one request whatever the size, and three
// in its log store if it has one. Exists if there is a disk.
func Create(
	ctx context.Context, store blob.Store, path string, opts CreateOptions,
) (*format.Head, error) {
	if err := checkNewPath(path); err != nil {
		return nil, err
	}
	if err := checkSize(opts.Size); err != nil {
		return nil, err
	}
	h := newHead(path, opts.ID, opts.Size)
	if err := setBound(h, opts.Bound); err != nil {
		return nil, err
	}
	h.Lineage = []format.Ancestor{{Path: path, UID: h.UID}}
	if opts.Key != nil {
		if err := encrypt(ctx, h, nil, opts.Key); err != nil {
			return nil, err
		}
	}
	done, err := newLogStore(ctx, h, opts.LogURL, opts.Pool, opts.OpenLog)
	if err != nil {
		return nil, err
	}
	return h, putHead(ctx, oneShot(store), path, h, done)
}

func checkSize(size int64) error {
	if size <= 0 || size > MaxSize || size%BlockSize != 0 {
		return errs.New(errs.Invalid, "a disk of %d bytes", size).
			WithRemedy("use a multiple of %d bytes up to 16 TiB", BlockSize)
	}
	return nil
}

// setBound makes a head's mode bounded, or durable for a bound of 0.
func setBound(h *format.Head, bound time.Duration) error {
	ms := bound.Milliseconds()
	switch {
	case bound == 0:
		h.SetMode(format.ModeDurable, 0)
		return nil
	case ms < format.MinBoundMS || ms > format.MaxBoundMS || bound%time.Millisecond != 0:
		return errs.New(errs.Invalid, "a bound of %v", bound).
			WithRemedy("use 100ms to 1h in whole milliseconds, or 0 for a durable disk")
	}
	next := *h
	next.SetMode(format.ModeBounded, ms)
	if err := sealedMode(&next); err != nil {
		return err
	}
	*h = next
	return nil
}

// MayHaveBound returns why a disk with that head can't be of mode bounded with that bound, or nil.
// 0 is durable.
func MayHaveBound(h *format.Head, bound time.Duration) error {
	next := *h
	return setBound(&next, bound)
}

// newHead returns the head of a disk that was never attached; it lacks a lineage.
func newHead(path, id string, size int64) *format.Head {
	if id == "" {
		id = lastElement(path)
	}
	t := now()
	return &format.Head{
		Version: format.Version, ID: id, UID: newNonce(), Size: size, Mode: format.ModeDurable,
		State: format.StateClosed, Nonce: newNonce(), Log: format.Position{Epoch: 1, Seq: 1},
		Created: t, Updated: t,
	}
}

// putHead writes the head of a new disk. It ends the making of the log store by done, which removes
// what was made there if another disk is at path.
func putHead(
	ctx context.Context, client *store.Client, path string, h *format.Head,
	done func(ctx context.Context, remove bool),
) error {
	body, err := format.Encode(h)
	if err != nil {
		done(ctx, true)
		return err
	}
	err = client.PutNew(ctx, headKey(path), body)
	done(ctx, errs.Is(err, errs.Conflict))
	if errs.Is(err, errs.Conflict) {
		return errs.Wrap(errs.Exists, err, "there is a disk at %s", path).
			WithRemedy("use it, or choose another path")
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "create disk %s", path)
	}
	return nil
}
