package gc

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// references lists and reads references of forks and pins, and finds disks that came since the
// first listing.
func (m *mark) references(ctx context.Context) error {
	if err := m.relist(ctx, func(path, key string, o object) {
		switch o.Kind {
		case format.KeyHead:
			m.disk(path)
		case format.KeyPin:
			m.pinSizes[key] = o.size
		}
	}); err != nil {
		return err
	}
	if err := each(ctx, m, "reading", m.unread(format.KeyRef), m.ref); err != nil {
		return err
	}
	for key, r := range m.refs {
		path, _, _ := format.SplitNamed(key)
		m.noteDocument(checkpointKey(path, r.Checkpoint))
	}
	if err := m.readCheckpoints(ctx); err != nil {
		// those that came since, and those that only forks tell of
		return err
	}
	pins := m.unread(format.KeyPin)
	for _, key := range pins {
		path, _, _ := format.SplitNamed(key)
		m.disk(path)
	}
	return each(ctx, m, "reading", pins, m.pin)
}

func (m *mark) ref(ctx context.Context, key string) error {
	b, err := m.c.get(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := format.DecodeRef(b)
	if err != nil && m.isOther(key) {
		return nil
	}
	_, o, _ := format.SplitNamed(key)
	if err == nil && (!format.ValidPath(r.Child) || o.Name != format.RefName(r.Child)) {
		err = errs.New(errs.Corrupt, "it names %q", r.Child)
	}
	if err != nil {
		return m.doubtDocument(key, nil, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs[key] = r
	m.found = append(m.found, key)
	return nil
}

func (m *mark) pin(ctx context.Context, key string) error {
	obj, err := m.c.read(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := format.DecodePin(obj.Data)
	if err != nil && m.isOther(key) {
		return nil
	}
	_, o, _ := format.SplitNamed(key)
	if err == nil && p.ID != o.Name {
		err = errs.New(errs.Corrupt, "it is pin %q", p.ID)
	}
	if err != nil {
		return m.doubtDocument(key, nil, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins[key] = p
	m.pinTags[key] = obj.ETag
	m.found = append(m.found, key)
	return nil
}

// heed notes what pins hold that have not ended.
func (m *mark) heed(context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(m.pins)) {
		p := m.pins[key]
		path, _, _ := format.SplitNamed(key)
		switch {
		case m.c.ended(key, p):
			m.dead[key] = m.pinSizes[key]
		case p.Map != nil:
			m.roots = append(m.roots, source{key, p.Map.Lineage, p.Map.Root, p.Map.Size, nil,
				m.pinTags[key]})
		case p.All && (m.disks[path] == nil || m.disks[path].last == nil):
			m.hold = "pin " + key // it can't be said what the disk's ancestors are
		case p.All:
			for _, a := range m.disks[path].last.Lineage {
				m.held[a.Path] = "pin " + key
			}
		}
	}
	return nil
}

// ended reports whether a pin has a lease and was the same twice that time ago, by this collector's
// own marks.
func (c *collector) ended(key string, p *format.Pin) bool {
	if p.LeaseMS == 0 {
		return false
	}
	lease := time.Duration(p.LeaseMS) * time.Millisecond
	return slices.ContainsFunc(c.past, func(s storedMark) bool {
		return s.mark.Documents[key] == p.Nonce && c.report.Started.Sub(s.mark.Created) >= 2*lease
	})
}

// edge is the step of a lineage from a disk to one that was forked from it.
type edge struct{ parent, child string }

// lines notes every step of the lineage of what refers to a map, and the checkpoint that was forked
// where that is known. While anything is left of a line of forks, the references along all of it
// stay. Each keeps a Destroy of its disk from taking what the end of the line needs. That holds
// also when a disk between the two is gone.
func (m *mark) lines() {
	m.edges = map[edge]string{}
	for _, s := range m.roots {
		for i := range len(s.lineage) - 1 {
			if e := (edge{s.lineage[i+1].Path, s.lineage[i].Path}); m.edges[e] == "" {
				m.edges[e] = ""
			}
		}
	}
	for _, d := range m.disks {
		if h := d.last; h != nil && h.Parent != nil {
			m.edges[edge{h.Parent.Path, d.path}] = h.Parent.Checkpoint
		}
	}
}

// unfinished reports whether what refers to a map that is gone is the head of a fork that failed.
// Such a head was never attached, and the checkpoint that it was made from is gone, too. A fork
// leaves one that dies before it has looked at its checkpoint again, or whose head is stored only
// after it was given up.
//
// It may also be a whole fork that was damaged. Only whoever asked for the fork knows, so the head
// stays, and with it all that its lineage has. The rest of the pool is not concerned.
func (m *mark) unfinished(ctx context.Context, s source) bool {
	h := s.head
	if h == nil || h.Epoch != 0 || h.Parent == nil {
		return false
	}
	b, err := m.c.get(ctx, checkpointKey(h.Parent.Path, h.Parent.Checkpoint))
	if err == nil {
		ck, derr := format.DecodeCheckpoint(b)
		if derr != nil || forkedFrom(h, ck) {
			return false
		}
	} else if !errs.Is(err, errs.NotFound) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range h.Lineage {
		m.held[a.Path] = "the unfinished fork " + h.Lineage[0].Path
	}
	m.c.report.note("fork %s was never finished, or is damaged: what it refers to is gone, as is "+
		"its checkpoint %s of %s; what it was forked from "+
		"is not collected until it is removed: sluice disk destroy %s",
		h.Lineage[0].Path, h.Parent.Checkpoint, h.Parent.Path, h.Lineage[0].Path)
	return true
}

// leftBehind reports whether what refers to a map that is gone is a checkpoint of a destroyed disk,
// and notes it as garbage. A Destroy removes the head, then the checkpoints, then the rest. A name
// that a writer was about to give may come after all that. Without its root nothing of a map can be
// reached.
func (m *mark) leftBehind(ctx context.Context, s source) bool {
	path, o, ok := format.SplitNamed(s.what)
	if !ok || o.Kind != format.KeyCheckpoint || s.head != nil || s.root == nil ||
		s.root.Lineage >= len(s.lineage) {
		return false
	}
	if d := m.disks[path]; d == nil || d.first != nil || d.last != nil {
		return false
	}
	if _, err := m.c.store.Get(ctx, rootKey(s.lineage, s.root),
		blob.Range{Offset: 0, Length: 1}); !errs.Is(err, errs.NotFound) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left[s.what] = true
	m.c.report.note("checkpoint %s is what is left of a destroyed disk: its map is gone", s.what)
	return true
}

// forkedFrom reports whether a fork's head has the map of a checkpoint.
func forkedFrom(h *format.Head, ck *format.Checkpoint) bool {
	if h.Parent.UID != ck.UID || (h.Root == nil) != (ck.Root == nil) {
		return false
	}
	return h.Root == nil || h.Root.Epoch == ck.Root.Epoch && h.Root.N == ck.Root.N
}

// register writes references of forks that have none. A fork that took very long may have lost its
// own to a collector, and destroying its parent would take what it needs with it.
func (c *collector) register(ctx context.Context, m *mark) error {
	registered := map[edge]bool{}
	for key, r := range m.refs {
		path, _, _ := format.SplitNamed(key)
		registered[edge{path, r.Child}] = true
	}
	for e, checkpoint := range m.edges {
		if registered[e] {
			continue
		}
		err := disk.Register(ctx, c.store, e.parent, e.child, checkpoint)
		if err != nil && !errs.Is(err, errs.Exists) {
			return err
		}
	}
	return nil
}
