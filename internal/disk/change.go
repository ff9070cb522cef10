package disk

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Grow makes a disk larger that nobody has attached. Its content stays, and what is new reads as
// zeros. A disk that is that large already is left alone. Conflict if its head is open, or changes
// meanwhile; Invalid if size is smaller than the disk.
func Grow(ctx context.Context, store blob.Store, path string, size int64) (*format.Head, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	return changeClosed(ctx, store, path, func(h *format.Head) (bool, error) {
		if err := mayGrow(path, h, size); err != nil {
			return false, err
		}
		grows := size > h.Size
		h.Size = size
		return grows, nil
	})
}

func mayGrow(path string, h *format.Head, size int64) error {
	if size < h.Size {
		return errs.New(errs.Invalid, "disk %s has %d bytes, and would shrink to %d",
			path, h.Size, size).
			WithRemedy("disks can grow but not shrink")
	}
	return nil
}

// Grow makes the disk, which is in use, larger. Its content stays, and what is new reads as zeros.
// A disk that is that large already is left alone. A front end that shows the device must be told;
// see frontend.Shown.
//
// The head has the new size before anything can be written beyond the old one. A crash in between
// leaves a disk of the new size.
//
// Errors: Invalid (size is smaller than the disk, or no disk's), Unavailable (the disk may have
// grown or not; call it again).
func (d *Disk) Grow(ctx context.Context, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	head := d.Head()
	if err := mayGrow(d.path, &head, size); err != nil {
		return err
	}
	if err := d.mapping.take(ctx); err != nil { // so that no map is being written
		return err
	}
	defer d.mapping.give()
	d.pipe.mu.RLock()
	err := d.mutableLocked()
	d.pipe.mu.RUnlock()
	if head = d.Head(); err == nil {
		err = mayGrow(d.path, &head, size)
	}
	if err == nil && head.Size < size {
		err = d.updateHead(ctx, func(h *format.Head) { h.Size = max(h.Size, size) })
	}
	if err != nil {
		return err
	}
	size = d.Head().Size // more, if an earlier call has succeeded after all
	d.reader.m.Grow(size)
	d.reader.setSize(size)
	return nil
}

// SetBound changes the mode of a disk that nobody has attached. With a bound, a local journal
// acknowledges flushes, and the store lacks no write older than that. With a bound of 0, only the
// store acknowledges them. Conflict if its head is open, or changes meanwhile.
func SetBound(
	ctx context.Context, store blob.Store, path string, bound time.Duration,
) (*format.Head, error) {
	return changeClosed(ctx, store, path, func(h *format.Head) (bool, error) {
		mode, ms := h.Mode, h.BoundMS
		err := setBound(h, bound)
		return h.Mode != mode || h.BoundMS != ms, err
	})
}

// Restore makes a disk that nobody has attached what it was at one of its checkpoints. It first
// makes a checkpoint of what the disk is now, and returns the name of that. The size stays: what a
// larger disk has beyond its checkpoint's size reads as zeros. It moves metadata only.
//
// Errors: NotFound (no disk or checkpoint), Conflict (its head is open, or changes meanwhile).
// After a Conflict the checkpoint of what the disk was may be there already, and does no harm.
func Restore(
	ctx context.Context, store blob.Store, path, checkpoint string,
) (h *format.Head, saved string, err error) {
	if err := checkPath(path); err != nil {
		return nil, "", err
	}
	client := oneShot(store)
	// Before anything is written: a pin at a path without a disk would hold up the whole pool's
	// collector.
	if _, err := loadCheckpoint(ctx, client, path, checkpoint); err != nil {
		return nil, "", err
	}
	p, err := takePin(ctx, client, path, "restore of "+checkpoint, pinLease)
	if err != nil {
		return nil, "", err
	}
	h, saved, err = restorePinned(ctx, client, p, path, checkpoint)
	if !errs.Is(err, errs.Unavailable) {
		// else the swap may still arrive, and the pin stays as long as its lease
		p.release(ctx)
	}
	return h, saved, err
}

// restorePinned restores while everything is pinned: what the checkpoint refers to can't go between
// reading it and swapping the head.
func restorePinned(
	ctx context.Context, client *store.Client, p *pin, path, checkpoint string,
) (h *format.Head, saved string, err error) {
	var head *format.Head
	var etag blob.ETag
	var g errgroup.Group
	g.Go(func() (err error) {
		head, etag, err = client.LoadHead(ctx, path)
		return err
	})
	c, err := loadCheckpoint(ctx, client, path, checkpoint)
	if herr := g.Wait(); err == nil {
		err = herr
	}
	if err != nil {
		return nil, "", err
	}
	saved = "before-restore-" + strings.ToLower(newNonce())
	h, err = changeLoaded(ctx, client, path, head, etag, func(h *format.Head) (bool, error) {
		if c.UID != h.UID || !slices.Equal(c.Lineage, h.Lineage) || c.Size > h.Size {
			return false, errs.New(errs.Corrupt, "checkpoint %s of %s is of another disk",
				checkpoint, path)
		}
		// Of the very head that is about to be replaced: the swap fails if it isn't that any more.
		_, body, err := putCheckpoint(ctx, client, path, saved, h)
		if err == nil {
			_, err = client.Shown(ctx, checkpointKey(path, saved), body)
		}
		if err != nil {
			return false, err
		}
		h.Root = c.Root
		return true, p.valid()
	})
	return h, saved, err
}

// changeClosed changes the head of a disk that nobody has attached, if change says that there is
// something to change. Nothing of the disk's log is left to replay then, so that the head and its
// map are all there is.
func changeClosed(
	ctx context.Context, store blob.Store, path string, change func(*format.Head) (bool, error),
) (*format.Head, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	h, etag, err := client.LoadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	return changeLoaded(ctx, client, path, h, etag, change)
}

// changeLoaded is changeClosed of a head that was just read.
func changeLoaded(
	ctx context.Context, client *store.Client, path string, h *format.Head, etag blob.ETag,
	change func(*format.Head) (bool, error),
) (*format.Head, error) {
	if h.State != format.StateClosed {
		return nil, errs.New(errs.Conflict, "disk %s is open: %q attached it with generation %d",
			path, h.Holder, h.Generation).
			WithRemedy("detach it first (after a crash: attach and close)")
	}
	if changed, err := change(h); !changed || err != nil {
		return h, err
	}
	h.Nonce, h.Updated = newNonce(), now()
	if _, _, err := client.SwapHead(ctx, path, h, etag); err != nil {
		if errs.Is(err, errs.Conflict) {
			return nil, errs.Wrap(errs.Conflict, err,
				"disk %s was attached or changed meanwhile", path).
				WithRemedy("look at it, and try again")
		}
		return nil, errs.Wrap(errs.KindOf(err), err, "change %s", path)
	}
	return h, nil
}

// ReadHead reads a disk's head, by one request. NotFound if there is no disk.
func ReadHead(ctx context.Context, store blob.Store, path string) (*format.Head, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	h, _, err := oneShot(store).LoadHead(ctx, path)
	return h, err
}
