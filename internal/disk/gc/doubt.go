package gc

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A disk's writer may be hostile, or broken. What it writes must not stop the collection of others'
// garbage, and must not have anything deleted that lives. So an object of a disk that makes no
// sense puts in doubt what the disk needs, and nothing else: its own objects, and those of all
// disks that it descends from. All of them count as reached, for as long as the object is there.
//
// A head is no such object. A store gateway lets no VM write one that can't be decoded, or that has
// another lineage. One that can't be read stops the collection, as anything does that tells
// nothing of what it needs.

// doubt is one object that makes no sense, or whose map doesn't.
type doubt struct {
	key     string
	path    string            // of the disk
	lineage []format.Ancestor // of what refers to the map; nil: the object doesn't tell
	why     error
}

// remedy says what can be done about it. The pool's URL may be unknown.
func (d *doubt) remedy(pool string) string {
	path := d.path
	if pool != "" {
		path = pool + "/" + path
	}
	_, k, _ := format.SplitNamed(d.key)
	switch {
	case k.Kind == format.KeyCheckpoint && format.ValidPath(k.Name):
		return "look at it with sluice disk fsck; if it is worth nothing, remove it: sluice disk " +
			"checkpoint rm " + path + " " + k.Name
	default:
		return "look at it with sluice disk fsck; if the disk is worth nothing, remove it: sluice " +
			"disk destroy " + path
	}
}

// isDoubt reports whether an error is of an object, and not of the store.
func isDoubt(err error) bool {
	return errs.Is(err, errs.Corrupt) || errs.Is(err, errs.Unsupported) ||
		errs.Is(err, errs.Invalid) // a range past an object's end
}

// doubtDocument notes a checkpoint, a reference or a pin that makes no sense, and gives back any
// other error.
func (m *mark) doubtDocument(key string, lineage []format.Ancestor, err error) error {
	if !isDoubt(err) {
		return errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	path, _, _ := format.SplitNamed(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.found = append(m.found, key)
	m.doubts = append(m.doubts, doubt{key, path, lineage, err})
	return nil
}

// doubtMap notes that the map which something refers to makes no sense, and gives back any other
// error. A map that is missing is one of these if what refers to it is still there, unchanged: then
// nobody has deleted it because it isn't needed any more.
func (m *mark) doubtMap(ctx context.Context, s source, err error) error {
	err = errs.Wrap(errs.KindOf(err), err, "the map that %s refers to", s.what)
	switch {
	case errs.Is(err, errs.NotFound):
		obj, gerr := m.c.store.Get(ctx, s.what, blob.Range{Offset: 0, Length: 1})
		switch {
		case errs.Is(gerr, errs.NotFound), gerr == nil && obj.ETag != s.etag:
			return err // it has moved on: the mark begins anew
		case gerr != nil:
			return errs.Wrap(errs.KindOf(gerr), gerr, "read %s", s.what)
		}
	case !isDoubt(err):
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.doubts, func(d doubt) bool { return d.key == s.what }) {
		// a head is read twice
		m.doubts = append(m.doubts, doubt{s.what, s.lineage[0].Path, s.lineage, err})
	}
	return nil
}

// holdDoubtful notes the paths of which everything counts as reached, once all is read that tells
// what descends from what.
func (m *mark) holdDoubtful() {
	parents := m.parents()
	for _, d := range m.doubts {
		held := map[string]bool{}
		for _, a := range d.lineage {
			held[a.Path] = true
		}
		known := m.ancestors(d.path, parents, held) || d.lineage != nil
		if !known {
			// It has no head, and nothing names it: what it descends from can't be told.
			m.hold = d.key + ", which makes no sense"
		}
		for path := range held {
			if m.doubtful[path] == "" {
				m.doubtful[path] = d.key
			}
		}
		m.c.report.doubt(d, !known, d.remedy(m.c.opts.Pool))
	}
}

// parents returns by path of which disks it is known to be a fork: by heads and all else that has a
// lineage, and by the references of forks, which no VM can write or remove.
func (m *mark) parents() map[string]map[string]bool {
	parents := map[string]map[string]bool{}
	add := func(e edge) {
		if parents[e.child] == nil {
			parents[e.child] = map[string]bool{}
		}
		parents[e.child][e.parent] = true
	}
	for e := range m.edges {
		add(e)
	}
	for key, kind := range m.documents {
		if kind != format.KeyRef {
			continue
		}
		path, k, _ := format.SplitNamed(key)
		if child, ok := format.ChildOf(k.Name); ok {
			add(edge{path, child})
		}
		if r := m.refs[key]; r != nil {
			add(edge{path, r.Child})
		}
	}
	return parents
}

// ancestors adds a path, and all that it is known to descend from, to held. It reports whether
// anything tells of what the path descends from.
func (m *mark) ancestors(path string, parents map[string]map[string]bool,
	held map[string]bool) (known bool) {
	known = len(parents[path]) > 0
	if d := m.disks[path]; d != nil && (d.first != nil || d.last != nil) {
		known = true
	}
	queue, seen := []string{path}, map[string]bool{path: true}
	for _, a := range slices.Sorted(maps.Keys(held)) {
		queue = append(queue, a)
		seen[a] = true
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		held[at] = true
		next := maps.Clone(parents[at])
		if d := m.disks[at]; d != nil {
			for _, h := range []*format.Head{d.first, d.last} {
				if h == nil {
					continue
				}
				for _, a := range h.Lineage {
					if next == nil {
						next = map[string]bool{}
					}
					next[a.Path] = true
				}
			}
		}
		for p := range next {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return known
}
