package gc

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// kind is what an object of a disk is, by its key.
type kind uint8

// The kinds. Heads, checkpoints and owners' documents of living disks are never garbage.
const (
	kindHead kind = iota
	kindOwner
	kindLog
	kindSeg
	kindMap
	kindCkpt
	kindRef
	kindPin
	kindBoot
)

// String returns the kind's name in reports; of most it is the name in keys.
func (k kind) String() string {
	return [...]string{"head", "owner", "log", "seg", "map", "ckpt", "refs", "pins", "boot"}[k]
}

// object is one object of a disk. There is one in memory for each in the pool, so that it has its key taken apart.
type object struct {
	epoch  uint64 // of log, seg, map and boot/<epoch>
	n      uint64 // sequence number, or number
	size   int64
	name   string // of ckpt, refs, pins and boot/of/<name>; pages or root of map; <session> in a log store
	kind   kind
	second bool // it is in the disk's log store
}

// rel returns the key below the disk's path; of what is in a log store, the key in marks.
func (o *object) rel() string {
	switch o.kind {
	case kindHead:
		return "head"
	case kindOwner:
		return "machine.json"
	case kindLog:
		if o.second {
			return secondLog + o.secondRel()
		}
		return fmt.Sprintf("log/%016x/%016x", o.epoch, o.n)
	case kindSeg:
		return fmt.Sprintf("seg/%016x-%08x", o.epoch, o.n)
	case kindMap:
		return fmt.Sprintf("map/%016x-%08x/%s", o.epoch, o.n, o.name)
	case kindBoot:
		if o.name == "" {
			return fmt.Sprintf("boot/%016x", o.epoch)
		}
		return "boot/of/" + o.name
	}
	return o.kind.String() + "/" + o.name
}

// parse tells whose object a key is, by the end of it: paths of disks are arbitrary. ok is false for what is no
// object of any disk, or has another key than a disk would give it.
func parse(key string) (path string, o object, ok bool) {
	path, o, ok = parseEnd(strings.Split(key, "/"))
	return path, o, ok && key == path+"/"+o.rel()
}

func parseEnd(e []string) (path string, o object, ok bool) {
	n := len(e)
	last := e[n-1]
	before := func(k int) string { return strings.Join(e[:n-k], "/") }
	at := func(back int, name string) bool { return n > back && e[n-back] == name }
	var good bool
	switch {
	case n > 1 && last == "head":
		o.kind = kindHead
		return before(1), o, true
	case n > 1 && last == "machine.json":
		o.kind = kindOwner
		return before(1), o, true
	case at(3, "log"):
		o.kind = kindLog
		if o.epoch, good = hex(e[n-2], 16); good {
			o.n, good = hex(last, 16)
		}
		return before(3), o, good
	case at(3, "map") && last == "pages":
		o.kind, o.name = kindMap, "pages"
		o.epoch, o.n, good = version(e[n-2])
		return before(3), o, good
	case at(3, "map") && last == "root":
		o.kind, o.name = kindMap, "root"
		o.epoch, o.n, good = version(e[n-2])
		return before(3), o, good
	case at(3, "boot") && at(2, "of"):
		o.kind, o.name = kindBoot, strings.Clone(last)
		return before(3), o, last != ""
	case at(2, "seg"):
		o.kind = kindSeg
		o.epoch, o.n, good = version(last)
		return before(2), o, good
	case at(2, "boot"):
		o.kind = kindBoot
		o.epoch, good = hex(last, 16)
		return before(2), o, good
	}
	return parseNamed(e, last)
}

func parseNamed(e []string, last string) (path string, o object, ok bool) {
	n := len(e)
	if n < 3 {
		return "", o, false
	}
	for _, k := range []kind{kindCkpt, kindRef, kindPin} {
		if e[n-2] == k.String() {
			o.kind, o.name = k, strings.Clone(last)
			return strings.Join(e[:n-2], "/"), o, true
		}
	}
	return "", o, false
}

// leaf returns what else the key of a head or an owner's document may be: the checkpoint "head" of disk "a" has
// the key of the head of a disk "a/ckpt".
func leaf(key string) (path string, o object, ok bool) {
	e := strings.Split(key, "/")
	return parseNamed(e, e[len(e)-1])
}

// hex parses a padded number.
func hex(s string, digits int) (uint64, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil && len(s) == digits
}

// version parses <epoch>-<n>.
func version(s string) (epoch, n uint64, ok bool) {
	a, b, found := strings.Cut(s, "-")
	epoch, ok1 := hex(a, 16)
	n, ok2 := hex(b, 8)
	return epoch, n, found && ok1 && ok2
}

// refNamesChild reports whether a reference has the name that it must. Of a long path only a digest is in it, so that
// the document says which child it is.
func refNamesChild(name, child string) bool {
	escaped := url.PathEscape(child)
	return name == escaped || len(escaped) > 200 && strings.HasPrefix(name, "sha256-")
}

// isFenceSized reports whether a log object can be a fence: nothing else is that small.
func isFenceSized(size int64) bool { return size <= int64(format.LogHeaderLen(0, 0)) }
