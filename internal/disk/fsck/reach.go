package fsck

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Reach notes which objects maps refer to, by the walk of a check, without any key: of an encrypted
// disk too, directories and segment tables can be read. It reads neither regions nor segments.
// Unlike a check it is strict: what can't be read, or is not as it must be, is an error. It is safe
// for concurrent use.
type Reach struct {
	c *checker

	mu    sync.Mutex
	maps  int
	walks map[mapID]*mapWalk
}

// mapID is a map as something refers to it. What refers to the same object in another way, a wrong
// one perhaps, has a walk of its own: the error of one says nothing of the other.
type mapID struct {
	key     string
	size    int64
	crc     uint32
	lineage [sha256.Size]byte
}

// mapWalk is one walk, which all that refer to the map in the same way share.
type mapWalk struct {
	done chan struct{} // closed once the others are known
	size int64         // of the disk that the map is of, bytes
	err  error
}

// NewReach returns a Reach that has nothing noted. It makes one attempt at each request. sizes, by
// key, are of objects that are known to be there.
func NewReach(store blob.Store, codec *format.Codec, sizes map[string]int64) *Reach {
	return &Reach{walks: map[mapID]*mapWalk{}, c: &checker{store: store, codec: codec,
		onlyReach: true, own: sizes, log: log{r: &Report{}}, reached: map[string]struct{}{},
		hashes: map[uint64]struct{}{}, seed: maphash.MakeSeed()}}
}

// Map notes all that the map under root refers to, its own objects too. A map that was noted before
// is not read again. Size is of the disk that refers to it, in bytes. After an error, not all of
// what this map refers to is noted; what others refer to is.
func (r *Reach) Map(ctx context.Context, lineage []format.Ancestor, root *format.RootRef,
	size int64) error {
	if root == nil {
		return nil
	}
	lineage = lineage[root.Lineage:]
	id := mapID{key: mapKey(lineage[0].Path, root.Epoch, root.N, format.RootName),
		size: root.Size, crc: root.CRC, lineage: digest(lineage)}
	r.mu.Lock()
	m := r.walks[id]
	first := m == nil
	if first {
		m = &mapWalk{done: make(chan struct{})}
		r.walks[id] = m
	}
	r.mu.Unlock()
	if first {
		m.size, m.err = r.walk(ctx, id.key, lineage, root)
		close(m.done)
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for the walk of %s", id.key)
	}
	if m.err == nil && m.size > size {
		return errs.New(errs.Corrupt, "%s: it maps %d bytes of a disk of %d", id.key, m.size, size)
	}
	return m.err
}

// walk walks a map, and returns the size of its disk.
func (r *Reach) walk(ctx context.Context, key string, lineage []format.Ancestor,
	root *format.RootRef) (size int64, err error) {
	r.c.reach(key)
	found := &Report{}
	w := &walk{c: r.c, log: &log{r: found}, key: key, lineage: lineage}
	ok, err := w.open(ctx, root)
	if ok && err == nil {
		err = w.run(ctx)
	}
	switch {
	case err != nil:
		return 0, err
	case len(found.Damage) > 0:
		d := found.Damage[0]
		return 0, errs.New(errs.Corrupt, "%s: %s", d.Object, d.Detail)
	case found.Locked > 0:
		return 0, errs.New(errs.Corrupt, "%s: %d of its pages can't be read without a key", key,
			found.Locked)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maps++
	return w.root.Size, nil
}

// digest tells lineages apart.
func digest(lineage []format.Ancestor) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, a := range lineage {
		_, _ = fmt.Fprintf(h, "%d %s %d %s ", len(a.Path), a.Path, len(a.UID), a.UID)
	}
	h.Sum(sum[:0])
	return sum
}

// Has reports whether anything that was noted refers to the object.
func (r *Reach) Has(key string) bool { return r.c.isReached(key) }

// Maps returns how many maps were noted.
func (r *Reach) Maps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.maps
}

// Named returns the keys of the roots and pages of maps that were noted.
func (r *Reach) Named() []string {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return slices.Collect(maps.Keys(r.c.reached))
}
