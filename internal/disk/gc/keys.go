package gc

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// kind is what an object of a disk is, by its key.
type kind string

// The kinds. Heads, checkpoints and owners' documents of living disks are never garbage.
const (
	kindHead  kind = "head"
	kindOwner kind = "owner"
	kindLog   kind = "log"
	kindSeg   kind = "seg"
	kindMap   kind = "map"
	kindCkpt  kind = "ckpt"
	kindRef   kind = "refs"
	kindPin   kind = "pins"
	kindBoot  kind = "boot"
)

// object is one object of a disk.
type object struct {
	rel   string // key below the disk's path
	kind  kind
	epoch uint64 // of log, seg, map and boot/<epoch>
	n     uint64 // sequence number, or number
	name  string // of ckpt, refs, pins and boot/of/<name>
	size  int64

	second bool // it is in the disk's log store
}

// parse tells whose object a key is, by the end of it: paths of disks are arbitrary. ok is false for what is no
// object of any disk.
func parse(key string) (path string, o object, ok bool) {
	e := strings.Split(key, "/")
	n := len(e)
	last := e[n-1]
	cut := func(k int) string {
		o.rel = strings.Join(e[n-k:], "/")
		return strings.Join(e[:n-k], "/")
	}
	at := func(back int, name string) bool { return n > back && e[n-back] == name }
	var good bool
	switch {
	case n > 1 && last == "head":
		o.kind = kindHead
		return cut(1), o, true
	case n > 1 && last == "machine.json":
		o.kind = kindOwner
		return cut(1), o, true
	case at(3, "log"):
		o.kind = kindLog
		if o.epoch, good = hex(e[n-2], 16); good {
			o.n, good = hex(last, 16)
		}
		return cut(3), o, good
	case at(3, "map") && (last == "pages" || last == "root"):
		o.kind = kindMap
		o.epoch, o.n, good = version(e[n-2])
		return cut(3), o, good
	case at(3, "boot") && at(2, "of"):
		o.kind, o.name = kindBoot, last
		return cut(3), o, true
	case at(2, "seg"):
		o.kind = kindSeg
		o.epoch, o.n, good = version(last)
		return cut(2), o, good
	case at(2, "boot"):
		o.kind = kindBoot
		o.epoch, good = hex(last, 16)
		return cut(2), o, good
	}
	return parseNamed(e, last)
}

func parseNamed(e []string, last string) (path string, o object, ok bool) {
	n := len(e)
	if n < 3 {
		return "", o, false
	}
	switch e[n-2] {
	case "ckpt", "refs", "pins":
		o.kind, o.name, o.rel = kind(e[n-2]), last, e[n-2]+"/"+last
		return strings.Join(e[:n-2], "/"), o, true
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
