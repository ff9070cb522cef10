package disk

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxPagesPrefetch = 1 << 20  // a newest pages object up to this size is read whole on attach
	pageGap          = 16 << 10 // pages this close are read by one request
	maxPageRead      = 1 << 20
)

// pageSource reads map pages: from what was read ahead, else by ranged GETs.
type pageSource struct {
	store   *store.Client
	codec   *format.Codec
	lineage []format.Ancestor
	keys    format.Keys // of the lineage; nil: none of it is encrypted

	mu     sync.Mutex
	stored map[format.PageRef][]byte // read ahead, forgotten on use: the map keeps what it decoded
	newest *pagesObject
}

// pagesObject is a whole pages object on its way.
type pagesObject struct {
	ref  format.RootRef
	done chan struct{}
	data []byte // nil if it could not be read
}

var _ blockmap.Source = (*pageSource)(nil)

// ReadPage returns a page's contents.
func (s *pageSource) ReadPage(ctx context.Context, ref format.PageRef) ([]byte, error) {
	if b := s.ahead(ctx, ref); b != nil && int(ref.Lineage) < len(s.lineage) {
		if page, err := s.decode(b, ref); err == nil {
			return page, nil
		}
	}
	page, err := s.read(ctx, ref)
	if errs.Is(err, errs.Corrupt) {
		page, err = s.read(ctx, ref) // once more: the way here may have bent it, not the store
	}
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "read map page at %d of %s", ref.Offset,
			s.key(ref))
	}
	return page, nil
}

func (s *pageSource) key(ref format.PageRef) string {
	if int(ref.Lineage) >= len(s.lineage) {
		return ""
	}
	return pagesKey(s.lineage[ref.Lineage].Path, ref.Epoch, ref.N)
}

func (s *pageSource) read(ctx context.Context, ref format.PageRef) ([]byte, error) {
	key := s.key(ref)
	if key == "" {
		return nil, errs.New(errs.Corrupt, "map refers to disk %d of a lineage of %d", ref.Lineage,
			len(s.lineage))
	}
	b, err := s.store.GetExact(ctx, key, int64(ref.Offset), int64(ref.Length))
	if err != nil {
		return nil, notMissing(err)
	}
	return s.decode(b, ref)
}

// decode opens a stored page of the lineage.
func (s *pageSource) decode(stored []byte, ref format.PageRef) ([]byte, error) {
	key, err := s.keys.Page(s.lineage[ref.Lineage].UID, ref)
	if err != nil {
		return nil, err
	}
	return s.codec.DecodeStored(nil, stored, ref, key)
}

// notMissing turns NotFound of something that must be there into Corrupt.
func notMissing(err error) error {
	if errs.Is(err, errs.NotFound) {
		return errs.Wrap(errs.Corrupt, err, "an object that the disk refers to is gone")
	}
	return err
}

// ahead returns the stored bytes of a page that was read ahead, or nil.
func (s *pageSource) ahead(ctx context.Context, ref format.PageRef) []byte {
	s.mu.Lock()
	b, n := s.stored[ref], s.newest
	delete(s.stored, ref)
	s.mu.Unlock()
	if b != nil {
		return b
	}
	if n == nil || n.ref.Lineage != int(ref.Lineage) || n.ref.Epoch != ref.Epoch ||
		n.ref.N != ref.N {
		return nil
	}
	select {
	case <-n.done:
	case <-ctx.Done():
		return nil
	}
	if end := int(ref.Offset) + int(ref.Length); end <= len(n.data) {
		return n.data[ref.Offset:end]
	}
	return nil
}

// prefetch begins to read the pages object of a root whole, if it is small. What changed last is
// what an attach after a move needs first.
func (s *pageSource) prefetch(t *tasks, root *format.RootRef) {
	if root == nil || root.PagesSize == 0 || root.PagesSize > maxPagesPrefetch ||
		root.Lineage >= len(s.lineage) {
		return
	}
	p := &pagesObject{ref: *root, done: make(chan struct{})}
	key := pagesKey(s.lineage[root.Lineage].Path, root.Epoch, root.N)
	if t.spawn(func(ctx context.Context) {
		defer close(p.done)
		if b, err := s.store.GetExact(ctx, key, 0, root.PagesSize); err == nil {
			p.data = b
		}
	}) {
		s.mu.Lock()
		s.newest = p
		s.mu.Unlock()
	}
}

// forget drops what was read ahead.
func (s *pageSource) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored, s.newest = nil, nil
}

// readAhead reads the stored bytes of many pages with few requests and keeps them for ReadPage.
func (s *pageSource) readAhead(ctx context.Context, refs []format.PageRef) error {
	slices.SortFunc(refs, func(a, b format.PageRef) int {
		return cmp.Or(cmp.Compare(a.Lineage, b.Lineage), cmp.Compare(a.Epoch, b.Epoch),
			cmp.Compare(a.N, b.N), cmp.Compare(a.Offset, b.Offset))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for len(refs) > 0 {
		n := groupLen(refs)
		group := refs[:n]
		refs = refs[n:]
		g.Go(func() error { return s.readGroup(ctx, group) })
	}
	return g.Wait()
}

// groupLen returns how many of the sorted refs are near enough to be read by one request.
func groupLen(refs []format.PageRef) int {
	first := refs[0]
	end := first.Offset + first.Length
	for i, r := range refs[1:] {
		if r.Lineage != first.Lineage || r.Epoch != first.Epoch || r.N != first.N ||
			r.Offset > end+pageGap || r.Offset+r.Length-first.Offset > maxPageRead {
			return i + 1
		}
		end = max(end, r.Offset+r.Length)
	}
	return len(refs)
}

func (s *pageSource) readGroup(ctx context.Context, refs []format.PageRef) error {
	key := s.key(refs[0])
	if key == "" {
		return errs.New(errs.Corrupt, "map refers outside its lineage")
	}
	start := int64(refs[0].Offset)
	last := refs[len(refs)-1]
	b, err := s.store.GetExact(ctx, key, start, int64(last.Offset)+int64(last.Length)-start)
	if err != nil {
		return notMissing(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored == nil {
		s.stored = make(map[format.PageRef][]byte)
	}
	for _, r := range refs {
		off := int64(r.Offset) - start
		s.stored[r] = b[off : off+int64(r.Length)]
	}
	return nil
}

// loadRoot reads and checks the map root that ref names.
func (s *pageSource) loadRoot(ctx context.Context, ref *format.RootRef) (*format.Root, error) {
	if ref == nil {
		return nil, nil
	}
	key := rootKey(s.lineage[ref.Lineage].Path, ref.Epoch, ref.N)
	b, err := s.store.GetExact(ctx, key, 0, ref.Size)
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(notMissing(err)), err, "read map root")
	}
	if format.CRC(b) != ref.CRC {
		return nil, errs.New(errs.Corrupt, "%s: checksum mismatch", key)
	}
	pkey, err := s.keys.Root(s.lineage[ref.Lineage].UID, ref)
	if err != nil {
		return nil, err
	}
	root, err := s.codec.DecodeRoot(b, pkey)
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	if root.Epoch != ref.Epoch || root.N != ref.N {
		return nil, errs.New(errs.Corrupt, "%s holds version %d-%d", key, root.Epoch, root.N)
	}
	return root, nil
}
