package gc

import (
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// judge says of every object why it is kept, or that it is garbage. It returns, by disk, the
// garbage that an earlier mark has found to be so, too.
func (c *collector) judge(m *mark) map[string][]object {
	r := c.report
	r.Maps, r.Pins, r.Forks, r.Checkpoints = m.reach.Maps(), len(m.pins), len(m.refs), len(m.ckpts)
	if m.unknown.Objects > 0 {
		r.Kept[KeptUnknown] = m.unknown
	}
	earlier := map[string][]string{} // path and uid → keys
	if c.base != nil {
		r.Marked = &c.base.mark.Created
		for _, d := range c.base.mark.Disks {
			earlier[d.Path+"\x00"+d.UID] = d.Garbage
		}
	}
	victims := map[string][]object{}
	for _, path := range slices.Sorted(maps.Keys(m.disks)) {
		d := m.disks[path]
		c.judgeDisk(m, d)
		before := map[string]bool{}
		for _, k := range earlier[path+"\x00"+d.uid()] {
			before[k] = true
		}
		for _, o := range d.garbage {
			if before[o.rel()] {
				r.Freed.add(o.Kind.String(), o.size)
				victims[path] = append(victims[path], o)
			} else {
				r.Waiting.add(o.Kind.String(), o.size)
			}
		}
	}
	for key, size := range m.dead { // two marks have seen them
		r.Freed.add(format.KeyPin.String(), size)
		path, k, _ := format.SplitNamed(key)
		victims[path] = append(victims[path], object{k, size})
	}
	if next := c.next(m); r.Waiting.Total().Objects > 0 {
		r.Next = &next
	}
	return victims
}

// uid returns which disk it is; empty for one that is gone.
func (d *poolDisk) uid() string {
	if d.last == nil {
		return ""
	}
	return d.last.UID
}

func (c *collector) judgeDisk(m *mark, d *poolDisk) {
	r := c.report
	changed := (d.first == nil) != (d.last == nil) || d.first != nil && d.first.UID != d.last.UID
	switch {
	case d.last != nil:
		r.Disks++
	case d.destroyed():
		r.Destroyed++
	}
	if changed && len(d.objects) > 0 {
		r.note("%s was made or destroyed meanwhile, and is left alone", d.path)
	}
	holder, held := m.held[d.path]
	if m.hold != "" {
		holder, held = m.hold, true
	}
	for _, o := range d.objects {
		why := m.keep(d, &o)
		switch {
		case why != "":
		case m.doubtful[d.path] != "":
			why = KeptDoubtful
		case changed:
			why = KeptUncertain
		case held && o.Kind != format.KeyRef:
			why = KeptPinned
			r.note("everything of %s is held by %s", d.path, holder)
		default:
			d.garbage = append(d.garbage, o)
			continue
		}
		if o.Kind != format.KeyPin || m.dead[d.path+"/"+o.rel()] == 0 {
			r.Kept.add(why, o.size)
		}
	}
}

// destroyed reports whether a path without a head has what only disks have.
func (d *poolDisk) destroyed() bool {
	return slices.ContainsFunc(d.objects, func(o object) bool {
		return o.isLog() || o.Kind == format.KeyMap || o.Kind == format.KeySeg
	})
}

// keep returns why an object is no garbage, or "".
func (m *mark) keep(d *poolDisk, o *object) string {
	key := d.path + "/" + o.rel()
	if m.reach.Has(key) {
		return KeptReached
	}
	switch o.Kind {
	case format.KeyHead, format.KeyPin: // pins that have ended have their own way
		return KeptDocument
	case format.KeyCheckpoint:
		if m.left[key] {
			return ""
		}
		return KeptDocument
	case format.KeyOwner:
		if _, _, named := format.SplitNamed(key); d.last != nil || named || !d.destroyed() {
			return KeptDocument
		}
		return ""
	case format.KeyRef:
		r := m.refs[key]
		if r == nil || m.hold != "" || m.disks[r.Child].last != nil ||
			m.disks[r.Child].first != nil || m.doubtful[r.Child] != "" {
			return KeptDocument
		}
		if _, needed := m.edges[edge{d.path, r.Child}]; needed {
			// by forks and readers of the child, which is destroyed
			return KeptDocument
		}
		return ""
	}
	if o.Kind == format.KeyBoot && o.Name != "" {
		if m.ckpts[checkpointKey(d.path, o.Name)] || format.IsDocumentName(o.Name) {
			return KeptDocument
		}
		return ""
	}
	if d.first == nil {
		return ""
	}
	if o.Kind == format.KeyBoot &&
		(o.Epoch == d.first.Boot || d.last != nil && o.Epoch == d.last.Boot) {
		return KeptDocument
	}
	return keptByHead(d.first, o)
}

// keptByHead returns why an object that no map reaches is kept all the same: by the head as it was
// before anything else was read.
func keptByHead(h *format.Head, o *object) string {
	if o.isLog() && isFenceSized(o.size) {
		return KeptFence
	}
	inFlight := o.Epoch > h.Epoch
	switch o.Kind {
	case format.KeyLog, format.KeyRunLog: // a replay would begin there
		inFlight = inFlight || o.Epoch > h.Log.Epoch || o.Epoch == h.Log.Epoch && o.N >= h.Log.Seq
	case format.KeySeg:
		inFlight = inFlight || o.Epoch == h.Epoch && o.N >= uint64(h.Packed)
	case format.KeyMap:
		r := h.Root
		inFlight = inFlight || o.Epoch == h.Epoch &&
			(r == nil || r.Lineage > 0 || r.Epoch < o.Epoch || o.N > uint64(r.N))
	case format.KeyBoot:
		inFlight = inFlight || o.Epoch == h.Epoch
	}
	if inFlight {
		return KeptInFlight
	}
	return ""
}
