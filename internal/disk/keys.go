package disk

import (
	pathpkg "path"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The grammar of keys is format.Key's. These name those that the disk uses.

func headKey(path string) string  { return format.Key{Kind: format.KeyHead}.In(path) }
func ownerKey(path string) string { return format.Key{Kind: format.KeyOwner}.In(path) }

func logKey(path string, epoch, seq uint64) string {
	return format.Key{Kind: format.KeyLog, Epoch: epoch, N: seq}.In(path)
}

// Keys in a log store begin with the disk's uid. The store may hold the logs of disks of many
// pools, and of disks that were at one path one after the other.

func identityKey(uid string) string { return format.Key{Kind: format.KeyIdentity}.In(uid) }

// onceKey returns the key of an object that has one purpose: the store can be seen to refuse a
// second write of it.
func onceKey(uid string) string { return format.Key{Kind: format.KeyOnce}.In(uid) }

func secondLogKey(uid string, epoch uint64, session string, seq uint64) string {
	return format.Key{Kind: format.KeyRunLog, Epoch: epoch, Name: session, N: seq}.In(uid)
}

func segmentKey(path string, e *format.SegmentEntry) string { return format.SegmentKey(e).In(path) }

func pagesKey(path string, epoch uint64, n uint32) string {
	return format.MapKey(epoch, n, format.PagesName).In(path)
}

func rootKey(path string, epoch uint64, n uint32) string {
	return format.MapKey(epoch, n, format.RootName).In(path)
}

func checkpointKey(path, name string) string {
	return format.Key{Kind: format.KeyCheckpoint, Name: name}.In(path)
}

func traceKey(path string, epoch uint64) string {
	return format.Key{Kind: format.KeyBoot, Epoch: epoch}.In(path)
}

// checkpointTraceKey returns the key of the trace that forks of a checkpoint begin with.
func checkpointTraceKey(path, name string) string {
	return format.Key{Kind: format.KeyBoot, Name: name}.In(path)
}

func pinKey(path, name string) string {
	return format.Key{Kind: format.KeyPin, Name: name}.In(path)
}

// refKey returns the key of the reference that a fork at child has with the disk at path.
func refKey(path, child string) string {
	return format.Key{Kind: format.KeyRef, Name: format.RefName(child)}.In(path)
}

// leasePrefix begins the names of pins that have a lease. Named ones, which last, don't begin so.
const leasePrefix = "lease-"

func checkPath(path string) error {
	if !format.ValidPath(path) {
		return errs.New(errs.Invalid, "bad disk path %q", path).
			WithRemedy(`use a relative path in the pool, such as "disks/web-1"`)
	}
	return nil
}

// checkNewPath also refuses paths at which a head would have the key of another disk's object. The
// checkpoint "head" of disk "a" is the head of a disk "a/ckpt".
func checkNewPath(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if last := lastElement(path); last != path && format.HoldsNames(last) {
		return errs.New(errs.Invalid, "a disk at %s could be mistaken for a part of one at %s",
			path, pathpkg.Dir(path)).
			WithRemedy("choose a path that doesn't end in /%s", last)
	}
	return nil
}

// checkPinName accepts checkpoint names, but for those of leased pins and of a disk's own
// documents.
func checkPinName(name string) error {
	if err := CheckName(name); err != nil {
		return errs.New(errs.Invalid, "bad pin name %q", name).
			WithRemedy("use up to 128 letters, digits, dots, dashes and underscores, and don't " +
				"begin with a dot")
	}
	if strings.HasPrefix(name, leasePrefix) || format.IsDocumentName(name) {
		return errs.New(errs.Invalid, "pin name %q is reserved", name).
			WithRemedy("choose another name")
	}
	return nil
}

// CheckName accepts checkpoint names of 1 to 128 letters, digits, dots, dashes and underscores that
// don't begin with a dot.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 128 && name[0] != '.'
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (letter || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return errs.New(errs.Invalid, "bad checkpoint name %q", name).
			WithRemedy("use up to 128 letters, digits, dots, dashes and underscores, and don't " +
				"begin with a dot")
	}
	return nil
}

func lastElement(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}
