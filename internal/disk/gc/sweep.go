package gc

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sweep deletes the victims. Freed counts what was deleted, also if it ends early.
func (c *collector) sweep(ctx context.Context, m *mark, victims map[string][]object) error {
	s := &sweeper{c: c, m: m}
	for _, v := range victims {
		s.total += int64(len(v))
	}
	c.report.Freed = Tallies{}
	for _, path := range slices.Sorted(maps.Keys(victims)) {
		if err := s.disk(ctx, path, victims[path]); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "delete the garbage of %s", path)
		}
	}
	return nil
}

type sweeper struct {
	c     *collector
	m     *mark
	total int64

	mu   sync.Mutex
	done int64
}

// disk deletes the garbage of one disk, if it still is the disk that was looked at.
func (s *sweeper) disk(ctx context.Context, path string, victims []object) error {
	d := s.m.disks[path]
	same, err := s.same(ctx, path, d.uid())
	if err != nil {
		return err
	}
	if !same {
		s.c.report.note("%s was made or destroyed meanwhile, and is left alone", path)
		for _, o := range victims {
			s.c.report.Kept.add(KeptUncertain, o.size)
		}
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range victims {
		g.Go(func() error { return s.object(gctx, d, o) })
	}
	return g.Wait()
}

// same reports whether the disk at a path is the one with the uid; none for an empty one.
func (s *sweeper) same(ctx context.Context, path, uid string) (bool, error) {
	b, err := s.c.get(ctx, headKey(path))
	if errs.Is(err, errs.NotFound) {
		return uid == "", nil
	}
	if err != nil {
		return false, err
	}
	h, err := format.DecodeHead(b)
	if _, _, named := format.SplitNamed(headKey(path)); named && errs.Is(err, errs.Corrupt) {
		return uid == "", nil
	}
	return err == nil && h.UID == uid, err
}

func (s *sweeper) object(ctx context.Context, d *poolDisk, o object) error {
	store, key := s.m.place(d, &o)
	ok, err := s.mayDelete(ctx, d, &o, key)
	if err != nil {
		return err
	}
	if ok {
		if err := store.Delete(ctx, key); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "delete %s", key)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	s.c.opts.Progress("deleting", s.done, s.total)
	if ok {
		s.c.report.Freed.add(o.Kind.String(), o.size)
	} else {
		s.c.report.Kept.add(KeptUncertain, o.size)
	}
	return nil
}

// mayDelete looks once more where a wrong guess would cost most. It looks for a fork's head, and,
// where there is no head to vouch for it, whether an object is what its key says.
func (s *sweeper) mayDelete(ctx context.Context, d *poolDisk, o *object, key string) (bool, error) {
	switch {
	case o.Kind == format.KeyRef:
		_, err := s.c.store.Get(ctx, headKey(s.m.refs[key].Child), blob.Range{Offset: 0, Length: 1})
		if errs.Is(err, errs.NotFound) {
			return true, nil
		}
		return false, err
	case d.last != nil, o.Kind == format.KeyOwner, o.Kind == format.KeyPin:
		return true, nil
	}
	obj, err := s.c.store.Get(ctx, key, blob.Range{Offset: 0, Length: format.MagicLen})
	if errs.Is(err, errs.NotFound) {
		return false, nil // another collector was faster
	}
	if err != nil {
		return false, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	if o.Kind != format.KeyCheckpoint && !format.IsObject(obj.Data) {
		// a checkpoint was read by this mark
		s.mu.Lock()
		defer s.mu.Unlock()
		s.c.report.note("%s has the name of a disk's object and is none, and is left alone", key)
		return false, nil
	}
	return true, nil
}
