package fsck

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// sumUp counts what wasn't reached.
func (c *checker) sumUp() {
	c.unlisted()
	for _, key := range c.below("") {
		rel, size := strings.TrimPrefix(key, c.path+"/"), c.own[key]
		kind := kindOf(rel)
		c.count(key, kind, size, c.inFlight(kind, rel))
	}
	if c.second != nil {
		for _, key := range slices.Sorted(maps.Keys(c.second.objects)) {
			epoch, _, seq, ok := secondLog(c.head.UID, key)
			c.count(key, "log", c.second.objects[key], ok &&
				c.inFlightLog(format.Position{Epoch: epoch, Seq: seq}))
		}
	}
}

// unlisted tells of objects that were read, and that the listing lacks: it may also lack others,
// which were not read then.
func (c *checker) unlisted() {
	damaged := map[string]bool{}
	for _, f := range c.log.r.Damage {
		damaged[f.Object] = true
	}
	for _, key := range slices.Sorted(maps.Keys(c.reached)) {
		rel, own := strings.CutPrefix(key, c.path+"/")
		if _, listed := c.own[key]; own && !listed && !damaged[key] && kindOf(rel) != "other" &&
			kindOf(rel) != "boot" && !c.inFlight(kindOf(rel), rel) {
			c.log.damage(key,
				"is there, and the store doesn't list it: what else its listings lack was not checked")
		}
	}
}

func (c *checker) count(key, kind string, size int64, inFlight bool) {
	r := c.log.r
	r.Own.add(size)
	switch {
	case c.isReached(key), kind == "head", kind == "ckpt", kind == "refs", kind == "pins":
	case inFlight:
		r.InFlight.add(size)
	default:
		t := r.Unreachable[kind]
		t.add(size)
		r.Unreachable[kind] = t
		if c.opts.Garbage != nil {
			c.opts.Garbage(key, size)
		}
	}
}

// inFlightLog is inFlight of a log object.
func (c *checker) inFlightLog(p format.Position) bool {
	return c.head.State == format.StateOpen && p.Epoch == c.head.Epoch &&
		(p.Epoch > c.head.Log.Epoch || p.Seq >= c.head.Log.Seq)
}

// inFlight reports whether an unreached object may be one that the present writer is about to refer
// to.
func (c *checker) inFlight(kind, rel string) bool {
	if c.head.State != format.StateOpen {
		return false
	}
	switch kind {
	case "log":
		p, ok := logPosition(rel)
		return ok && c.inFlightLog(p)
	case "boot":
		return rel == fmt.Sprintf("boot/%016x", c.head.Epoch)
	case "seg":
		epoch, n, ok := segNumber(rel)
		return ok && epoch == c.head.Epoch && n >= uint64(c.head.Packed)
	case "map":
		epoch, n, ok := mapEpoch(rel)
		root := c.head.Root
		return ok && epoch == c.head.Epoch &&
			(root == nil || root.Lineage > 0 || root.Epoch < epoch || uint64(root.N) < n)
	}
	return false
}
