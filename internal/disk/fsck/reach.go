package fsck

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Reach notes which objects maps refer to, by the walk of a check, without any key: of an encrypted
// disk too, directories and segment tables can be read. It reads neither regions nor segments.
// Unlike a check it is strict: what can't be read, or is not as it must be, is an error.
type Reach struct{ c *checker }

// NewReach returns a Reach that has nothing noted. It makes one attempt at each request. sizes, by
// key, are of objects that are known to be there.
func NewReach(store blob.Store, codec *format.Codec, sizes map[string]int64) *Reach {
	return &Reach{&checker{store: store, codec: codec, onlyReach: true, own: sizes,
		log: log{r: &Report{}}, reached: map[string]struct{}{}, hashes: map[uint64]struct{}{},
		seed: maphash.MakeSeed()}}
}

// Map notes all that the map under root refers to, its own objects too. A map that was noted before
// is not read again. Size is of the disk that refers to it, in bytes. After an error nothing can be
// said of what is reached.
func (r *Reach) Map(ctx context.Context, lineage []format.Ancestor, root *format.RootRef,
	size int64) error {
	if err := r.c.walk(ctx, lineage, root, size, false); err != nil {
		return err
	}
	var err error
	r.c.log.count(func(r *Report) {
		if d := r.Damage; len(d) > 0 {
			err = errs.New(errs.Corrupt, "%s: %s", d[0].Object, d[0].Detail)
		}
	})
	return err
}

// Has reports whether anything that was noted refers to the object.
func (r *Reach) Has(key string) bool { return r.c.isReached(key) }

// Maps returns how many maps were noted.
func (r *Reach) Maps() int { return r.c.log.r.Roots }

// Named returns the keys of the roots and pages of maps that were noted.
func (r *Reach) Named() []string {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return slices.Collect(maps.Keys(r.c.reached))
}
