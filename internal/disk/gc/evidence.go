package gc

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A listing may be short, old or wrong, and what it doesn't show may live. So nothing is taken for
// gone because a listing lacks it. What refers to anything is looked for in all listings of a mark,
// and in what else names it. Each is then read by its key. A listing that lacks what is known to be
// there stops the collection. That is known from other objects, and from the marks of earlier
// collections.

// isEvidence reports whether objects of a kind are looked for in listings that are held against
// what is known to be there.
func isEvidence(k format.KeyKind) bool {
	return k == format.KeyHead || k == format.KeyOwner || k == format.KeyMap || isDocument(k)
}

// isDocument reports whether objects of a kind keep others from being collected, and are found by
// listing.
func isDocument(k format.KeyKind) bool {
	return k == format.KeyCheckpoint || k == format.KeyRef || k == format.KeyPin
}

// listAll lists the pool. A listing that ends early is gone on with: only an empty rest is its end.
func (c *collector) listAll(ctx context.Context, prefix string, yield func(blob.Entry)) error {
	for last := ""; ; {
		n := 0
		if err := c.store.List(ctx, prefix, last, func(e blob.Entry) bool {
			n++
			last = e.Key
			yield(e)
			return true
		}); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "list the pool")
		}
		if n == 0 {
			return nil
		}
	}
}

// known returns the keys of heads, checkpoints, references and pins that earlier marks have seen.
func (c *collector) known() []string {
	keys := map[string]bool{}
	for i := range c.past {
		for key := range c.past[i].mark.Documents {
			keys[key] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// noteDocument notes a key at which there may be a document.
func (m *mark) noteDocument(key string) {
	if _, o, ok := format.SplitNamed(key); ok && isDocument(o.Kind) {
		m.documents[key] = o.Kind
	}
}

// evidence notes what tells of checkpoints beside listings: the forks of them, and the boot traces
// that forks begin with. Paths of disks that only lineages tell of are added, and returned.
func (m *mark) evidence() (paths []string) {
	for path, d := range m.disks {
		for _, o := range d.objects {
			if o.Kind == format.KeyBoot && o.Name != "" {
				m.noteDocument(checkpointKey(path, o.Name))
			}
		}
	}
	for i := range m.roots {
		for _, a := range m.roots[i].lineage {
			if m.disks[a.Path] == nil {
				m.disk(a.Path)
				paths = append(paths, a.Path)
			}
		}
		if h := m.roots[i].head; h != nil && h.Parent != nil {
			m.noteDocument(checkpointKey(h.Parent.Path, h.Parent.Checkpoint))
		}
	}
	return paths
}

// unread returns the keys of documents of a kind that this mark has not read yet, and takes them
// for read.
func (m *mark) unread(k format.KeyKind) (keys []string) {
	for key, kind := range m.documents {
		if kind == k && !m.read[key] {
			m.read[key] = true
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// believe returns nil if a listing shows all that this mark has read of what was there before the
// listing began. That is heads, documents, and the maps they refer to. Unavailable: it lacks one
// that is still there.
func (m *mark) believe(ctx context.Context, shown map[string]bool) error {
	must := m.c.known()
	for path, d := range m.disks {
		if d.first != nil {
			must = append(must, headKey(path))
			if r := d.first.Root; r != nil {
				must = append(must, rootKey(d.first.Lineage, r))
			}
		}
	}
	must = append(must, m.found...)
	must = append(must, m.reach.Named()...)
	slices.Sort(must)
	lacks := slices.DeleteFunc(slices.Compact(must), func(key string) bool { return shown[key] })
	err := each(ctx, m, "reading", lacks, func(ctx context.Context, key string) error {
		_, err := m.c.store.Get(ctx, key, blob.Range{Offset: 0, Length: 1})
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return errs.Wrap(errs.KindOf(err), err, "read %s", key)
		}
		return errs.New(errs.Unavailable,
			"the store has %s and doesn't list it: its listings can't be believed", key).
			WithRemedy("nothing is collected until they can; find out what is wrong with the " +
				"store, or with what is before it")
	})
	m.disbelieved = m.disbelieved || errs.Is(err, errs.Unavailable)
	return err
}

// remember keeps what a mark has seen whose listings could not be believed, so that later ones know
// of it, and returns why it ended. There is no garbage in what it keeps.
func (c *collector) remember(ctx context.Context, m *mark, why error) error {
	if m == nil || !m.disbelieved || c.opts.DryRun {
		return why
	}
	known := c.known()
	seen := m.seen()
	maps.DeleteFunc(seen, func(key, _ string) bool {
		_, again := slices.BinarySearch(known, key)
		return again
	})
	if len(seen) == 0 {
		return why
	}
	if err := c.putMark(ctx, &format.Mark{Created: c.opts.Now(), Documents: m.seen()}); err != nil {
		return errs.Wrap(errs.KindOf(why), why, "what was seen all the same could not be kept (%v)",
			err)
	}
	return why
}
