package fsck

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// walk is a map being walked. Its lineage is that of the disk that wrote the root.
type walk struct {
	c       *checker
	log     *log   // gets what is found damaged
	key     string // of the root
	root    *format.Root
	lineage []format.Ancestor
	segs    []format.SegmentEntry // by segment index; lineage counts from here

	mu     sync.Mutex
	live   []uint32 // blocks counted, by segment index
	mapped uint64
	locked bool // a page could not be decrypted, so that nothing can be said of sums
}

// walk checks the map that ref names: root, segment table, directories, regions, and that live
// counts are exact. A root that was walked before is not walked again. Size is of the disk that
// refers to it.
func (c *checker) walk(ctx context.Context, lineage []format.Ancestor, ref *format.RootRef,
	size int64, isHead bool) error {
	if ref == nil {
		return nil
	}
	lineage = lineage[ref.Lineage:]
	key := mapKey(lineage[0].Path, ref.Epoch, ref.N, "root")
	if !c.reach(key) {
		return nil
	}
	w := &walk{c: c, log: &c.log, key: key, lineage: lineage}
	if ok, err := w.open(ctx, ref); !ok || err != nil {
		return err
	}
	if isHead {
		c.log.count(func(r *Report) {
			r.MappedBytes = int64(w.root.Mapped) * format.BlockSize
		})
	}
	if w.root.Size > size {
		c.log.damage(key, "it maps %d bytes of a disk of %d", w.root.Size, size)
	}
	return w.run(ctx)
}

// open reads the root; false if it is damaged, so that there is nothing to walk.
func (w *walk) open(ctx context.Context, ref *format.RootRef) (ok bool, _ error) {
	root, err := w.c.readRoot(ctx, w.lineage[0].UID, w.key, ref)
	if err != nil {
		return false, w.c.found(w.key, err)
	}
	w.root = root
	w.log.count(func(r *Report) { r.Roots++ })
	if !slices.Equal(root.Lineage, w.lineage) {
		w.log.damage(w.key, "its lineage of %d is not that of what refers to it",
			len(root.Lineage))
		return false, nil
	}
	return true, nil
}

func (c *checker) readRoot(ctx context.Context, uid, key string,
	ref *format.RootRef) (*format.Root, error) {
	b, size, err := c.get(ctx, key, blob.All())
	if err != nil {
		return nil, err
	}
	if size != ref.Size || format.CRC(b) != ref.CRC {
		return nil, errs.New(errs.Corrupt,
			"%d bytes with checksum %08x, referred to as %d with %08x", size, format.CRC(b),
			ref.Size, ref.CRC)
	}
	pkey, err := c.keysOf().Root(uid, ref)
	if err != nil {
		return nil, err
	}
	root, err := c.codec.DecodeRoot(b, pkey)
	if err == nil && (root.Epoch != ref.Epoch || root.N != ref.N) {
		err = errs.New(errs.Corrupt, "it is version %d-%d", root.Epoch, root.N)
	}
	return root, err
}

func (w *walk) run(ctx context.Context) error {
	if !w.c.onlyReach { // a table of millions takes little room in the store, and much here
		w.segs = make([]format.SegmentEntry, len(w.root.Segs)*format.SegPageEntries)
		w.live = make([]uint32, len(w.segs))
	}
	for i, ref := range w.root.Segs {
		if ref.Length == 0 {
			continue
		}
		if err := w.segmentPage(ctx, uint32(i), ref); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, ref := range w.root.Dirs {
		if ref.Length > 0 {
			g.Go(func() error { return w.directory(gctx, uint32(i), ref) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !w.c.onlyReach {
		w.compare()
	}
	return nil
}

// page reads a page, marks its object, and hands its contents to decode. What decode or the reading
// finds wrong is damage; ok is false then.
func (w *walk) page(ctx context.Context, ref format.PageRef,
	decode func(contents []byte) error) (ok bool, _ error) {
	if int(ref.Lineage) >= len(w.lineage) {
		w.log.damage(w.key, "it refers to disk %d of a lineage of %d", ref.Lineage,
			len(w.lineage))
		return false, nil
	}
	key := mapKey(w.lineage[ref.Lineage].Path, ref.Epoch, ref.N, "pages")
	w.c.reach(key)
	contents, err := w.c.readPage(ctx, w.lineage[ref.Lineage].UID, key, ref)
	if err == nil {
		err = decode(contents)
	}
	if errs.Is(err, errs.Denied) { // its checksum is right
		w.log.count(func(r *Report) { r.Locked++ })
		w.mu.Lock()
		defer w.mu.Unlock()
		w.locked = true
		return false, nil
	}
	if err != nil {
		if !errs.Is(err, errs.NotFound) {
			err = errs.Wrap(errs.KindOf(err), err, "page of %d bytes at %d", ref.Length, ref.Offset)
		}
		return false, w.c.found(key, err)
	}
	w.log.count(func(r *Report) { r.Pages++ })
	return true, nil
}

// segmentPage reads one page of the segment table and notes the segments for their own check.
func (w *walk) segmentPage(ctx context.Context, i uint32, ref format.PageRef) error {
	var entries []format.SegmentEntry
	if w.c.onlyReach {
		entries = make([]format.SegmentEntry, format.SegPageEntries)
	} else {
		entries = w.segs[i*format.SegPageEntries : (i+1)*format.SegPageEntries]
	}
	ok, err := w.page(ctx, ref, func(b []byte) error { return format.DecodeSegPage(entries, b, i) })
	if !ok || err != nil {
		return err
	}
	for j := range entries {
		e := &entries[j]
		if e.Kind == format.KindFree {
			continue
		}
		e.Lineage += ref.Lineage
		if int(e.Lineage) >= len(w.lineage) {
			w.log.damage(w.key, "segment %d is of disk %d of a lineage of %d",
				i*format.SegPageEntries+uint32(j), e.Lineage, len(w.lineage))
			continue
		}
		owner := w.lineage[e.Lineage]
		w.c.addSegment(segmentKey(owner.Path, e), owner, e)
	}
	return nil
}

func (w *walk) directory(ctx context.Context, d uint32, ref format.PageRef) error {
	refs := make([]format.PageRef, format.DirRegions)
	ok, err := w.page(ctx, ref, func(b []byte) error { return format.DecodeDirPage(refs, b, d) })
	if !ok || err != nil {
		return err
	}
	for i, r := range refs {
		if r.Length == 0 {
			continue
		}
		r.Lineage += ref.Lineage
		if w.c.onlyReach && int(r.Lineage) < len(w.lineage) {
			w.c.reach(mapKey(w.lineage[r.Lineage].Path, r.Epoch, r.N, "pages"))
			continue
		}
		if err := w.region(ctx, d*format.DirRegions+uint32(i), r); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) region(ctx context.Context, id uint32, ref format.PageRef) error {
	var extents []format.Extent
	ok, err := w.page(ctx, ref, func(b []byte) (err error) {
		extents, err = format.DecodeRegionPage(nil, b, id)
		return err
	})
	if !ok || err != nil {
		return err
	}
	blocks := uint64(w.root.Size) / format.BlockSize
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range extents {
		seg, first := e.Loc().Segment(), uint64(id)*format.RegionBlocks+uint64(e.Start())
		switch {
		case first+uint64(e.Count()) > blocks:
			w.log.damage(w.key, "blocks %d to %d are mapped, past the end at %d", first,
				first+uint64(e.Count()), blocks)
		case int(seg) >= len(w.segs) || w.segs[seg].Kind == format.KindFree:
			w.log.damage(w.key, "block %d is in segment %d, which the table doesn't know", first,
				seg)
		case e.Loc().Block()+e.Count() > w.segs[seg].Blocks:
			w.log.damage(w.key, "block %d is block %d of segment %d, which has %d", first,
				e.Loc().Block(), seg, w.segs[seg].Blocks)
		default:
			w.live[seg] += e.Count()
			w.mapped += uint64(e.Count())
		}
	}
	return nil
}

// compare holds what was counted against what the table and the root say.
func (w *walk) compare() {
	if w.locked {
		return
	}
	for i := range w.segs {
		if e := &w.segs[i]; e.Kind != format.KindFree && e.Live != w.live[i] {
			w.log.damage(w.key, "segment %d has %d live blocks, the table says %d", i,
				w.live[i], e.Live)
		}
	}
	if w.mapped != w.root.Mapped {
		w.log.damage(w.key, "%d blocks are mapped, the root says %d", w.mapped, w.root.Mapped)
	}
}

const (
	wholePages = 8 << 20  // pages objects up to this size are read whole
	keptPages  = 64 << 20 // bytes of them that are kept
)

// pageCache keeps whole pages objects, because their pages are read one after the other, and by
// many maps.
type pageCache struct {
	mu      sync.Mutex
	objects map[string][]byte
	bytes   int
}

func (p *pageCache) get(key string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.objects[key]
}

func (p *pageCache) keep(key string, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects == nil || p.bytes+len(b) > keptPages {
		p.objects, p.bytes = map[string][]byte{}, 0
	}
	p.objects[key] = b
	p.bytes += len(b)
}

func (c *checker) readPage(ctx context.Context, uid, key string,
	ref format.PageRef) ([]byte, error) {
	object := c.cache.get(key)
	if size, known := c.own[key]; object == nil && known && size <= wholePages {
		b, _, err := c.get(ctx, key, blob.All())
		if err != nil {
			return nil, err
		}
		c.cache.keep(key, b)
		object = b
	}
	end := int64(ref.Offset) + int64(ref.Length)
	var stored []byte
	switch {
	case object == nil:
		var err error
		if stored, _, err = c.get(ctx, key,
			blob.Range{Offset: int64(ref.Offset), Length: int64(ref.Length)}); err != nil {
			return nil, err
		}
	case end > int64(len(object)):
		return nil, errs.New(errs.Corrupt, "object of %d bytes", len(object))
	default:
		stored = object[ref.Offset:end]
	}
	pkey, err := c.keysOf().Page(uid, ref)
	if err != nil {
		return nil, err
	}
	return c.codec.DecodeStored(nil, stored, ref, pkey)
}
