package gc

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// mark is one reading of a pool.
type mark struct {
	c       *collector
	created time.Time
	disks   map[string]*poolDisk // by path
	unknown Tally
	reach   *fsck.Reach
	sizes   map[string]int64 // of objects with map pages, by key
	walked  int              // of the roots

	// keys at which there may be documents: all that anything tells of
	documents map[string]format.KeyKind
	read      map[string]bool // of them, those that were looked for

	disbelieved bool // a listing lacked what is there

	mu       sync.Mutex
	logs     map[string]*logStore // by the disk's path
	roots    []source
	pins     map[string]*format.Pin // by key
	dead     map[string]int64       // pins that have ended: key → size
	pinSizes map[string]int64       // by key
	pinTags  map[string]blob.ETag   // by key
	refs     map[string]*format.Ref // by key
	ckpts    map[string]bool        // keys
	left     map[string]bool        // of them, those that a destroyed disk left without a map
	held     map[string]string      // paths of which everything is held, and by which pin
	hold     string                 // what holds everything there is
	doubts   []doubt
	doubtful map[string]string // paths of which everything is held, and by which object
	// of all lineages → the checkpoint that was forked, "" if nothing says which
	edges map[edge]string
	found []string // keys of documents that are there
}

// poolDisk is one path at which there is, or was, a disk.
type poolDisk struct {
	path        string
	objects     []object
	first, last *format.Head // as it was read before all else, and after; nil: there was none
	garbage     []object
}

// source is something that refers to a map.
type source struct {
	what    string
	lineage []format.Ancestor
	root    *format.RootRef
	size    int64
	head    *format.Head // if it is one
	etag    blob.ETag    // of the object
}

func (m *mark) empty() bool { return len(m.disks) == 0 }

// tryMark reads the pool in the one order that is safe; see the package comment.
func (c *collector) tryMark(ctx context.Context) (*mark, error) {
	m := &mark{c: c, disks: map[string]*poolDisk{}, sizes: map[string]int64{},
		pins: map[string]*format.Pin{},
		logs: map[string]*logStore{}, dead: map[string]int64{}, refs: map[string]*format.Ref{},
		ckpts: map[string]bool{}, left: map[string]bool{}, held: map[string]string{},
		documents: map[string]format.KeyKind{}, read: map[string]bool{},
		pinSizes: map[string]int64{}, doubtful: map[string]string{},
		pinTags: map[string]blob.ETag{}}
	m.reach = fsck.NewReach(c.store, c.codec, m.sizes)
	if err := m.list(ctx); err != nil {
		return nil, err
	}
	if m.empty() {
		if err := m.believe(ctx, nil); err != nil {
			return nil, err
		}
		return m, errs.New(errs.NotFound, "there is no disk in the store").
			WithRemedy("name the pool, which is a disk's URL without what begins at /disks/")
	}
	for _, read := range []func(context.Context) error{m.firstHeads, m.logStores, m.checkpoints,
		m.walk, m.references, m.lastHeads, m.heed, m.walk} {
		if err := read(ctx); err != nil {
			return m, err
		}
	}
	m.lines()
	m.holdDoubtful()
	// its end: who does something within a grace may count on no two marks in that time
	m.created = c.opts.Now()
	return m, nil
}

func (m *mark) disk(path string) *poolDisk {
	d := m.disks[path]
	if d == nil {
		d = &poolDisk{path: path}
		m.disks[path] = d
	}
	return d
}

// list finds all objects. What comes later is no garbage of this mark.
func (m *mark) list(ctx context.Context) error {
	m.c.report.Objects = Tally{}
	seen := int64(0)
	err := m.c.listAll(ctx, "", func(e blob.Entry) {
		if isMark(e.Key) {
			return
		}
		m.noteDocument(e.Key)
		m.c.report.Objects.add(e.Size)
		if seen++; seen%1000 == 0 {
			m.c.opts.Progress("listing", seen, 0)
		}
		path, k, ok := format.SplitKey(e.Key)
		if !ok {
			m.unknown.add(e.Size)
			return
		}
		d := m.disk(path)
		d.objects = append(d.objects, object{k, e.Size})
		if k.Kind == format.KeyMap {
			m.sizes[e.Key] = e.Size
		}
	})
	if err != nil {
		return err
	}
	for path, d := range m.disks { // a document of its own makes no disk
		if !slices.ContainsFunc(d.objects, func(o object) bool {
			return o.Kind != format.KeyOwner
		}) {
			for _, o := range d.objects {
				m.unknown.add(o.size)
			}
			delete(m.disks, path)
		}
	}
	return nil
}

// firstHeads reads the head of every disk, also of those that only others tell of. Of its own
// epoch, only what this one calls superseded can be garbage.
func (m *mark) firstHeads(ctx context.Context) error {
	paths := slices.Sorted(maps.Keys(m.disks))
	for len(paths) > 0 {
		if err := each(ctx, m, "reading", paths, func(ctx context.Context, path string) error {
			h, err := m.head(ctx, path)
			m.disks[path].first = h
			return err
		}); err != nil {
			return err
		}
		paths = m.evidence()
	}
	return nil
}

// lastHeads reads all heads again, and those of forks that came since.
func (m *mark) lastHeads(ctx context.Context) error {
	for _, r := range m.refs {
		m.disk(r.Child)
	}
	return each(ctx, m, "reading", slices.Sorted(maps.Keys(m.disks)),
		func(ctx context.Context, path string) error {
			h, err := m.head(ctx, path)
			m.disks[path].last = h
			return err
		})
}

// head reads a head and notes what it refers to; nil if there is none.
func (m *mark) head(ctx context.Context, path string) (*format.Head, error) {
	key := headKey(path)
	obj, err := m.c.read(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h, err := format.DecodeHead(obj.Data)
	if _, _, named := format.SplitNamed(key); named && errs.Is(err, errs.Corrupt) {
		return nil, nil // it is the checkpoint, the reference or the pin of that name
	}
	switch {
	case err != nil:
		return nil, errs.Wrap(errs.KindOf(err), err, "%s", key)
	case h.Lineage[0].Path != path || h.Lineage[0].UID != h.UID:
		return nil, errs.New(errs.Corrupt, "%s is the head of disk %s (%s), and not of one at %s",
			key, h.Lineage[0].Path, h.Lineage[0].UID, path).
			WithRemedy("name the pool that the disks were made in; a copy of a disk within its " +
				"pool must be moved away")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roots = append(m.roots, source{key, h.Lineage, h.Root, h.Size, h, obj.ETag})
	return h, nil
}

// checkpoints lists and reads all checkpoints, of destroyed disks too.
func (m *mark) checkpoints(ctx context.Context) error {
	if err := m.relist(ctx, func(string, string, object) {}); err != nil {
		return err
	}
	return m.readCheckpoints(ctx)
}

// readCheckpoints reads those that were not read yet.
func (m *mark) readCheckpoints(ctx context.Context) error {
	return each(ctx, m, "reading", m.unread(format.KeyCheckpoint),
		func(ctx context.Context, key string) error {
			return m.checkpoint(ctx, key)
		})
}

func (m *mark) checkpoint(ctx context.Context, key string) error {
	obj, err := m.c.read(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ck, err := format.DecodeCheckpoint(obj.Data)
	if err != nil {
		if m.isOther(key) {
			return nil
		}
		return m.doubtDocument(key, nil, err)
	}
	path, o, _ := format.SplitNamed(key)
	d := m.disks[path]
	ofHead := d != nil && d.first != nil && d.first.UID == ck.UID
	switch {
	case ck.Lineage[0].Path != path || ck.Lineage[0].UID != ck.UID:
		return m.doubtDocument(key, nil, errs.New(errs.Corrupt, "it is checkpoint %q of disk %s",
			ck.Name, ck.Lineage[0].Path))
	case ofHead && !slices.Equal(d.first.Lineage, ck.Lineage):
		// A disk's lineage never changes. Who claims another one would hold others' disks by it.
		return m.doubtDocument(key, nil, errs.New(errs.Corrupt,
			"its lineage of %d is not its disk's", len(ck.Lineage)))
	case ck.Name != o.Name:
		return m.doubtDocument(key, ck.Lineage, errs.New(errs.Corrupt, "it is checkpoint %q",
			ck.Name))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ckpts[key] = true
	m.found = append(m.found, key)
	m.roots = append(m.roots, source{key, ck.Lineage, ck.Root, ck.Size, nil, obj.ETag})
	return nil
}

// isOther reports whether a key that could be a checkpoint's is the head or the document of a disk
// with an odd path.
func (m *mark) isOther(key string) bool {
	path, o, _ := format.SplitKey(key)
	if o.Kind != format.KeyHead && o.Kind != format.KeyOwner {
		return false
	}
	d := m.disks[path]
	return d != nil && d.first != nil
}

// relist lists the pool once more, and fails if the listing can't be believed. It hands over what
// may be a document: heads by both their names.
func (m *mark) relist(ctx context.Context, found func(path, key string, o object)) error {
	shown := map[string]bool{}
	if err := m.c.listAll(ctx, "", func(e blob.Entry) {
		path, k, ok := format.SplitKey(e.Key)
		if !ok || isMark(e.Key) {
			return
		}
		if isEvidence(k.Kind) {
			shown[e.Key] = true
			m.noteDocument(e.Key)
		}
		found(path, e.Key, object{k, e.Size})
		if k.Kind == format.KeyHead || k.Kind == format.KeyOwner {
			if path, k, ok := format.SplitNamed(e.Key); ok {
				found(path, e.Key, object{k, e.Size})
			}
		}
	}); err != nil {
		return err
	}
	return m.believe(ctx, shown)
}

// walk notes all that was found to be reached since it was last called.
func (m *mark) walk(ctx context.Context) error {
	roots := m.roots[m.walked:]
	m.walked = len(m.roots)
	return each(ctx, m, "walking", roots, func(ctx context.Context, s source) error {
		err := m.reach.Map(ctx, s.lineage, s.root, s.size)
		if errs.Is(err, errs.NotFound) && (m.unfinished(ctx, s) || m.leftBehind(ctx, s)) {
			return nil
		}
		if err != nil {
			return m.doubtMap(ctx, s, err)
		}
		return nil
	})
}

// each runs f over all items, some at a time.
func each[T any](
	ctx context.Context, m *mark, phase string, items []T, f func(context.Context, T) error,
) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	var mu sync.Mutex
	done := int64(0)
	for _, x := range items {
		g.Go(func() error {
			err := f(gctx, x)
			mu.Lock()
			defer mu.Unlock()
			done++
			m.c.opts.Progress(phase, done, int64(len(items)))
			return err
		})
	}
	return g.Wait()
}

// get reads the content of a whole small object.
func (c *collector) get(ctx context.Context, key string) ([]byte, error) {
	obj, err := c.read(ctx, key)
	return obj.Data, err
}

// read reads a whole small object.
func (c *collector) read(ctx context.Context, key string) (blob.Object, error) {
	obj, err := c.store.Get(ctx, key, blob.All())
	if err != nil {
		return blob.Object{}, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	return obj, nil
}
