package fsck

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// checkMaps walks the maps of the head and of every checkpoint.
func (c *checker) checkMaps(ctx context.Context) error {
	if err := c.walk(ctx, c.head.Lineage, c.head.Root, c.head.Size, true); err != nil {
		return err
	}
	for _, key := range c.below("ckpt/") {
		c.reach(c.path + "/boot/of/" + strings.TrimPrefix(key, c.path+"/ckpt/"))
		c.log.count(func(r *Report) { r.Checkpoints++ })
		b, _, err := c.get(ctx, key, blob.All())
		var p *format.Checkpoint
		if err == nil {
			p, err = format.DecodeCheckpoint(b)
		}
		if err != nil {
			if err := c.found(key, err); err != nil {
				return err
			}
			continue
		}
		if p.UID != c.head.UID || c.path+"/ckpt/"+p.Name != key ||
			!slices.Equal(p.Lineage, c.head.Lineage) {
			c.log.damage(key, "checkpoint %q of disk %s with a lineage of %d doesn't belong here",
				p.Name, p.UID, len(p.Lineage))
			continue
		}
		if err := c.walk(ctx, p.Lineage, p.Root, p.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkPins walks what pins hold.
func (c *checker) checkPins(ctx context.Context) error {
	for _, key := range c.below("pins/") {
		b, _, err := c.get(ctx, key, blob.All())
		var p *format.Pin
		if err == nil {
			p, err = format.DecodePin(b)
		}
		switch {
		case errs.Is(err, errs.NotFound): // its reader has just ended
			continue
		case err != nil:
			if err := c.found(key, err); err != nil {
				return err
			}
			continue
		}
		c.log.count(func(r *Report) { r.Pins++ })
		if p.Map == nil {
			continue
		}
		if err := c.walk(ctx, p.Map.Lineage, p.Map.Root, p.Map.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkForks walks the maps of all that depends on the disk, for what they reach of it.
func (c *checker) checkForks(ctx context.Context) error {
	queue, seen := []string{c.path}, map[string]bool{c.path: true}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if path != c.path {
			if err := c.walkFork(ctx, path); err != nil {
				return err
			}
		}
		var refs []string
		if err := c.store.List(ctx, path+"/refs/", "", func(e blob.Entry) bool {
			refs = append(refs, e.Key)
			return true
		}); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "list forks of %s", path)
		}
		for _, key := range refs {
			b, _, err := c.get(ctx, key, blob.All())
			var ref *format.Ref
			if err == nil {
				ref, err = format.DecodeRef(b)
			}
			if err != nil {
				if err := c.found(key, err); err != nil {
					return err
				}
				continue
			}
			if !seen[ref.Child] && format.ValidPath(ref.Child) {
				seen[ref.Child] = true
				queue = append(queue, ref.Child)
			}
		}
	}
	return nil
}

// walkFork walks a fork's head and checkpoints. Their lineage holds this disk further on.
func (c *checker) walkFork(ctx context.Context, path string) error {
	b, _, err := c.get(ctx, headKey(path), blob.All())
	if errs.Is(err, errs.NotFound) {
		c.log.note("fork %s is registered, and isn't there: it was never finished, or is destroyed",
			path)
		return nil
	}
	if err == nil {
		if err = c.hold(ctx, path); err == nil { // and only then what it refers to
			b, _, err = c.get(ctx, headKey(path), blob.All())
		}
	}
	if err != nil {
		return err
	}
	h, err := format.DecodeHead(b)
	if err != nil {
		c.log.note("fork %s can't be read, so that what it needs may be counted as unreachable: %v",
			path, err)
		return nil
	}
	c.log.count(func(r *Report) { r.Forks++ })
	if err := c.unlockFork(ctx, path, h); err != nil {
		return err
	}
	if err := c.walk(ctx, h.Lineage, h.Root, h.Size, false); err != nil {
		return err
	}
	var points []string
	if err := c.store.List(ctx, path+"/ckpt/", "", func(e blob.Entry) bool {
		points = append(points, e.Key)
		return true
	}); err != nil {
		return err
	}
	for _, key := range points {
		b, _, err := c.get(ctx, key, blob.All())
		if err != nil {
			return err
		}
		p, err := format.DecodeCheckpoint(b)
		if err != nil {
			c.log.note(
				"checkpoint %s can't be read, so that what it needs may be counted as unreachable: %v", key, err)
			continue
		}
		if err := c.walk(ctx, p.Lineage, p.Root, p.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkTrace looks at the boot trace. It is a hint: without it the next boot is slower, and nothing
// is lost.
func (c *checker) checkTrace(ctx context.Context) error {
	if c.head.Boot == 0 {
		return nil
	}
	key := fmt.Sprintf("%s/boot/%016x", c.path, c.head.Boot)
	c.reach(key)
	b, _, err := c.get(ctx, key, blob.All())
	if err == nil {
		_, err = format.DecodeTrace(b)
	}
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Corrupt) {
		c.log.note("the boot trace can't be read, so that the next start reads nothing ahead: %v",
			err)
		return nil
	}
	return err
}
