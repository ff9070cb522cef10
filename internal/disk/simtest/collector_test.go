package simtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// grace is the time between a collector's two marks.
const grace = 2 * staleness

// collector is the protocol of collection at its plainest, over whole objects. It gives up what it does at
// anything that it can't read.
type collector struct {
	store blob.Store
	bug   bug
	codec *format.Codec

	reaches map[string]map[string]bool // by root, which never change
	tombs   map[string]bool            // what the first mark didn't find
	marked  time.Time
	deleted int
}

// step does the next part of a round: mark, mark again and delete.
func (c *collector) step(ctx context.Context) error {
	if c.tombs == nil || time.Since(c.marked) < grace {
		garbage, err := c.mark(ctx)
		if c.tombs, c.marked = garbage, time.Now(); err != nil || c.bug != collectOnce {
			return err
		}
	}
	tombs := c.tombs
	c.tombs = nil
	if c.bug != collectOnce {
		again, err := c.mark(ctx)
		if err != nil {
			return err
		}
		for key := range tombs {
			if !again[key] {
				delete(tombs, key)
			}
		}
	}
	for key := range tombs {
		if err := c.store.Delete(ctx, key); err != nil {
			return err // one that is left over is found by the next round
		}
		c.deleted++
	}
	return nil
}

// roots is what a mark begins at.
type roots struct {
	heads map[string]*format.Head // by path
	refs  map[string]rootOf
	print []string // what was read, to compare
}

type rootOf struct {
	lineage []format.Ancestor
	ref     *format.RootRef
}

// mark returns what nothing reaches. Roots are read until two readings in a row are the same, so that what moves
// from head to checkpoint and back is seen on its way.
func (c *collector) mark(ctx context.Context) (map[string]bool, error) {
	keys, err := c.list(ctx, "")
	if err != nil {
		return nil, err
	}
	var last []string
	all := roots{heads: map[string]*format.Head{}, refs: map[string]rootOf{}}
	for try := 0; ; try++ {
		if err := c.readRoots(ctx, &all); err != nil {
			return nil, err
		}
		if slices.Equal(last, all.print) {
			break
		}
		if last = all.print; try == 4 {
			return nil, errs.New(errs.Unavailable, "too much changes")
		}
	}
	reached := map[string]bool{}
	for owner, r := range all.refs {
		if c.reaches[owner] == nil {
			set := map[string]bool{}
			if err := c.walk(ctx, set, strings.Fields(owner)[0], r); err != nil {
				return nil, err
			}
			c.reaches[owner] = set
		}
		maps.Copy(reached, c.reaches[owner])
	}
	garbage := map[string]bool{}
	for _, key := range keys {
		ok, err := c.garbage(ctx, key, all.heads)
		if err != nil {
			return nil, err
		}
		if ok && !reached[key] {
			garbage[key] = true
		}
	}
	return garbage, nil
}

// readRoots reads heads and checkpoints first, then references and what they name.
func (c *collector) readRoots(ctx context.Context, all *roots) error {
	all.print = nil
	keys, err := c.list(ctx, "")
	if err != nil {
		return err
	}
	for _, key := range keys {
		if path, ok := strings.CutSuffix(key, "/head"); ok {
			if err := c.head(ctx, all, path); err != nil {
				return err
			}
		}
	}
	for _, key := range keys {
		if path, _, ok := strings.Cut(key, "/ckpt/"); ok {
			if err := c.checkpoint(ctx, all, path, key); err != nil {
				return err
			}
		}
	}
	keys, err = c.list(ctx, "")
	for _, key := range keys {
		if _, child, ok := strings.Cut(key, "/refs/"); ok && err == nil {
			err = c.head(ctx, all, strings.ReplaceAll(child, "%2F", "/"))
		}
	}
	slices.Sort(all.print)
	return err
}

func (c *collector) head(ctx context.Context, all *roots, path string) error {
	obj, err := c.get(ctx, path+"/head")
	if errs.Is(err, errs.NotFound) {
		return nil // a fork that is being made, or that failed
	}
	if err != nil {
		return err
	}
	h, err := format.DecodeHead(obj.Data)
	if err != nil {
		return err
	}
	all.print = append(all.print, path+" "+h.Nonce)
	all.heads[path] = h
	all.refs[path+" "+h.Nonce] = rootOf{h.Lineage, h.Root}
	return nil
}

func (c *collector) checkpoint(ctx context.Context, all *roots, path, key string) error {
	obj, err := c.get(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ck, err := format.DecodeCheckpoint(obj.Data)
	if err != nil {
		return err
	}
	all.print = append(all.print, path+" "+ck.Nonce)
	all.refs[path+" "+ck.Nonce] = rootOf{ck.Lineage, ck.Root}
	return nil
}

// garbage reports whether a key may be deleted if nothing reaches it.
func (c *collector) garbage(ctx context.Context, key string, heads map[string]*format.Head) (bool, error) {
	var epoch, n uint64
	if path, rest, ok := strings.Cut(key, "/map/"); ok {
		h := heads[path]
		if h == nil || h.Root == nil || h.Root.Lineage != 0 {
			return false, nil
		}
		if _, err := fmt.Sscanf(rest, "%x-%x/", &epoch, &n); err != nil {
			return false, err
		}
		return epoch < h.Root.Epoch || epoch == h.Root.Epoch && n < uint64(h.Root.N), nil
	}
	path, rest, ok := strings.Cut(key, "/log/")
	h := heads[path]
	if !ok || h == nil {
		return false, nil
	}
	if _, err := fmt.Sscanf(rest, "%x/%x", &epoch, &n); err != nil {
		return false, err
	}
	if epoch > h.Log.Epoch || epoch == h.Log.Epoch && n >= h.Log.Seq {
		return false, nil
	}
	obj, err := c.get(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lh, err := format.DecodeLogHeader(obj.Data)
	if err != nil {
		return false, err
	}
	return !lh.IsFence() || c.bug == collectFence, nil
}

// walk notes what a root reaches.
func (c *collector) walk(ctx context.Context, reached map[string]bool, owner string, r rootOf) error {
	if r.ref == nil {
		return nil
	}
	line := r.lineage[r.ref.Lineage:]
	key := fmt.Sprintf("%s/map/%016x-%08x/", line[0].Path, r.ref.Epoch, r.ref.N)
	obj, err := c.get(ctx, key+"root")
	if err != nil {
		return err
	}
	root, err := c.codec.DecodeRoot(obj.Data, nil)
	if err != nil {
		return err
	}
	reach := func(path, key string) {
		if c.bug != collectForeign || path == owner {
			reached[path+key] = true
		}
	}
	reach(line[0].Path, strings.TrimPrefix(key, line[0].Path)+"root")
	page := func(ref format.PageRef) ([]byte, error) {
		path, key := line[ref.Lineage].Path, fmt.Sprintf("/map/%016x-%08x/pages", ref.Epoch, ref.N)
		reach(path, key)
		obj, err := c.get(ctx, path+key)
		if err != nil {
			return nil, err
		}
		return c.codec.DecodeStored(nil, obj.Data[ref.Offset:ref.Offset+ref.Length], ref, nil)
	}
	for i, ref := range root.Dirs {
		if ref.Length == 0 {
			continue
		}
		b, err := page(ref)
		if err != nil {
			return err
		}
		regions := make([]format.PageRef, format.DirRegions)
		if err := format.DecodeDirPage(regions, b, uint32(i)); err != nil {
			return err
		}
		for _, rr := range regions {
			if rr.Length > 0 {
				reach(line[rr.Lineage+ref.Lineage].Path, fmt.Sprintf("/map/%016x-%08x/pages", rr.Epoch, rr.N))
			}
		}
	}
	for i, ref := range root.Segs {
		if ref.Length == 0 {
			continue
		}
		b, err := page(ref)
		if err != nil {
			return err
		}
		segs := make([]format.SegmentEntry, format.SegPageEntries)
		if err := format.DecodeSegPage(segs, b, uint32(i)); err != nil {
			return err
		}
		for _, s := range segs {
			if s.Kind == format.KindLog {
				reach(line[s.Lineage+ref.Lineage].Path, fmt.Sprintf("/log/%016x/%016x", s.Epoch, s.Seq))
			}
		}
	}
	return nil
}

// get reads a whole object, patiently.
func (c *collector) get(ctx context.Context, key string) (obj blob.Object, err error) {
	for range 8 {
		octx, cancel := context.WithTimeout(ctx, time.Second)
		obj, err = c.store.Get(octx, key, blob.All())
		cancel()
		if err == nil && int64(len(obj.Data)) < obj.Size {
			err = errs.New(errs.Unavailable, "short read of %s", key)
		}
		if !errs.Is(err, errs.Unavailable) {
			break
		}
	}
	return obj, err
}

func (c *collector) list(ctx context.Context, prefix string) (keys []string, err error) {
	for range 8 {
		keys = nil
		octx, cancel := context.WithTimeout(ctx, time.Second)
		err = c.store.List(octx, prefix, "", func(e blob.Entry) bool {
			keys = append(keys, e.Key)
			return true
		})
		cancel()
		if !errs.Is(err, errs.Unavailable) {
			break
		}
	}
	return keys, err
}
