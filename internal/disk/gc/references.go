package gc

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// references lists and reads references of forks and pins, and finds disks that came since the first listing.
func (m *mark) references(ctx context.Context) error {
	refs, pins, sizes := []string{}, []string{}, map[string]int64{}
	if err := m.relist(ctx, func(path, key string, o object) {
		switch o.kind {
		case kindHead:
			m.disk(path)
		case kindRef:
			refs = append(refs, key)
		case kindPin:
			m.disk(path)
			pins, sizes[key] = append(pins, key), o.size
		}
	}); err != nil {
		return err
	}
	if err := each(ctx, m, "reading", refs, m.ref); err != nil {
		return err
	}
	m.pinSizes = sizes
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
	_, o, _ := leaf(key)
	if err == nil && (!format.ValidPath(r.Child) || !refNamesChild(o.name, r.Child)) {
		err = errs.New(errs.Corrupt, "it names %q", r.Child)
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs[key] = r
	return nil
}

func (m *mark) pin(ctx context.Context, key string) error {
	b, err := m.c.get(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := format.DecodePin(b)
	if err != nil && m.isOther(key) {
		return nil
	}
	_, o, _ := leaf(key)
	if err == nil && p.ID != o.name {
		err = errs.New(errs.Corrupt, "it is pin %q", p.ID)
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pins[key] = p
	return nil
}

// heed notes what pins hold that have not ended.
func (m *mark) heed(context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(m.pins)) {
		p := m.pins[key]
		path, _, _ := leaf(key)
		switch {
		case m.c.ended(key, p):
			m.dead[key] = m.pinSizes[key]
		case p.Map != nil:
			m.roots = append(m.roots, source{key, p.Map.Lineage, p.Map.Root, p.Map.Size})
		case p.All && (m.disks[path] == nil || m.disks[path].last == nil):
			m.hold = key // it can't be said what the disk's ancestors are
		case p.All:
			for _, a := range m.disks[path].last.Lineage {
				m.held[a.Path] = key
			}
		}
	}
	return nil
}

// ended reports whether a pin has a lease and was the same twice that time ago, by this collector's own marks.
func (c *collector) ended(key string, p *format.Pin) bool {
	if p.LeaseMS == 0 {
		return false
	}
	lease := time.Duration(p.LeaseMS) * time.Millisecond
	return slices.ContainsFunc(c.past, func(s storedMark) bool {
		return s.mark.Pins[key] == p.Nonce && c.report.Started.Sub(s.mark.Created) >= 2*lease
	})
}

// register writes references of forks that have none. A fork that took very long may have lost its own to a
// collector, and destroying its parent would take what it needs with it.
func (c *collector) register(ctx context.Context, m *mark) error {
	registered := map[string]bool{} // parent and child
	for key, r := range m.refs {
		path, _, _ := leaf(key)
		registered[path+"\x00"+r.Child] = true
	}
	for _, d := range m.disks {
		h := d.last
		if h == nil || h.Parent == nil || registered[h.Parent.Path+"\x00"+d.path] {
			continue
		}
		err := disk.Register(ctx, c.store, h.Parent.Path, d.path, h.Parent.Checkpoint)
		if err != nil && !errs.Is(err, errs.Exists) {
			return err
		}
	}
	return nil
}
