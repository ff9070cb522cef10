package fsck

import (
	"context"
	"maps"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// unlock takes the keys of the disk's lineage from its head.
func (c *checker) unlock(ctx context.Context) error {
	e := c.head.Encryption
	if e == nil {
		return nil
	}
	c.log.count(func(r *Report) { r.Cipher = e.Cipher })
	if c.opts.Key == nil {
		c.log.note(
			"the disk is encrypted and no key was given: signatures, encrypted contents, live counts and which blocks are mapped were not checked")
		return nil
	}
	keys, err := disk.Unlock(ctx, c.head, c.opts.Key)
	c.keys = keys
	return err
}

// keysOf returns the keys that are known so far.
func (c *checker) keysOf() format.Keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys
}

// unlockFork adds a fork's keys, which the key that was given may not open.
func (c *checker) unlockFork(ctx context.Context, path string, h *format.Head) error {
	if h.Encryption == nil || c.opts.Key == nil {
		return nil
	}
	more, err := disk.Unlock(ctx, h, c.opts.Key)
	if errs.Is(err, errs.Denied) {
		c.log.note("fork %s is under another key, and was held against its checksums only", path)
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(more)
	maps.Copy(all, c.keys)
	c.keys = all
	return nil
}
