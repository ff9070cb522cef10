package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	pathpkg "path"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Keys are the disk's path in the pool followed by these. Numbers are in hex and padded, so that they sort.

func headKey(path string) string  { return path + "/head" }
func ownerKey(path string) string { return path + "/machine.json" }

func logKey(path string, epoch, seq uint64) string {
	return fmt.Sprintf("%s/log/%016x/%016x", path, epoch, seq)
}

// Keys in a log store, which may hold the logs of disks of many pools, and of disks that were at one path one after the
// other, are by the disk's uid.

func identityKey(uid string) string { return uid + "/disk" }

// onceKey is of an object that is there for one reason: that the store can be seen to refuse a second write of it.
func onceKey(uid string) string { return uid + "/once" }

func secondLogPrefix(uid string) string { return uid + "/log/" }

func secondLogKey(uid string, epoch uint64, session string, seq uint64) string {
	return fmt.Sprintf("%s%016x-%s/%016x", secondLogPrefix(uid), epoch, session, seq)
}

func segmentKey(path string, e *format.SegmentEntry) string {
	if e.Kind == format.KindSeg {
		return fmt.Sprintf("%s/seg/%016x-%08x", path, e.Epoch, e.Seq)
	}
	return logKey(path, e.Epoch, e.Seq)
}

func pagesKey(path string, epoch uint64, n uint32) string {
	return fmt.Sprintf("%s/map/%016x-%08x/pages", path, epoch, n)
}

func rootKey(path string, epoch uint64, n uint32) string {
	return fmt.Sprintf("%s/map/%016x-%08x/root", path, epoch, n)
}

func checkpointPrefix(path string) string { return path + "/ckpt/" }
func checkpointKey(path, name string) string {
	return checkpointPrefix(path) + name
}

func traceKey(path string, epoch uint64) string { return fmt.Sprintf("%s/boot/%016x", path, epoch) }

// checkpointTraceKey is of the trace that forks of a checkpoint begin with.
func checkpointTraceKey(path, name string) string { return path + "/boot/of/" + name }

func pinPrefix(path string) string { return path + "/pins/" }
func pinKey(path, name string) string {
	return pinPrefix(path) + name
}

func refPrefix(path string) string { return path + "/refs/" }

// refKey names a child by its escaped path, or by a digest of it where that is too long for a key element.
func refKey(path, child string) string {
	name := url.PathEscape(child)
	if len(name) > 200 {
		sum := sha256.Sum256([]byte(child))
		name = "sha256-" + hex.EncodeToString(sum[:])
	}
	return refPrefix(path) + name
}

// ownKey reports whether an object whose key below a disk's path is rel may be the disk's own. Others are those of
// disks whose paths lie below this one's.
func ownKey(rel string) bool {
	const epoch, n = "????????????????", "????????"
	for _, pattern := range []string{"head", "machine.json", "log/" + epoch + "/" + epoch, "seg/" + epoch + "-" + n,
		"map/" + epoch + "-" + n + "/pages", "map/" + epoch + "-" + n + "/root", "ckpt/*", "boot/" + epoch, "boot/of/*", "refs/*", "pins/*"} {
		if ok, _ := pathpkg.Match(pattern, rel); ok { // the patterns are well-formed
			return true
		}
	}
	return false
}

func checkPath(path string) error {
	if !format.ValidPath(path) {
		return errs.New(errs.Invalid, "bad disk path %q", path).
			WithRemedy(`use a relative path in the pool, such as "disks/web-1"`)
	}
	return nil
}

// checkNewPath also refuses places where a disk's head would have the key of another disk's object: the checkpoint
// "head" of disk "a" is the head of a disk "a/ckpt".
func checkNewPath(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if last := lastElement(path); last != path && slices.Contains([]string{"ckpt", "refs", "pins", "of"}, last) {
		return errs.New(errs.Invalid, "a disk at %s could be mistaken for a part of one at %s", path, pathpkg.Dir(path)).
			WithRemedy("choose a path that doesn't end in /%s", last)
	}
	return nil
}

// checkPinName accepts checkpoint names, but for those of leased pins and of a disk's own documents.
func checkPinName(name string) error {
	if err := checkName(name); err != nil {
		return errs.New(errs.Invalid, "bad pin name %q", name).
			WithRemedy("use up to 128 letters, digits, dots, dashes and underscores, and don't begin with a dot")
	}
	if strings.HasPrefix(name, leasePrefix) || name == "head" || name == "machine.json" {
		return errs.New(errs.Invalid, "pin name %q is reserved", name).WithRemedy("choose another name")
	}
	return nil
}

// checkName accepts checkpoint names of 1 to 128 letters, digits, dots, dashes and underscores that don't
// begin with a dot.
func checkName(name string) error {
	ok := name != "" && len(name) <= 128 && name[0] != '.'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return errs.New(errs.Invalid, "bad checkpoint name %q", name).
			WithRemedy("use up to 128 letters, digits, dots, dashes and underscores, and don't begin with a dot")
	}
	return nil
}

// seqOf parses the last part of a log object's key.
func seqOf(name string) (uint64, bool) {
	seq, err := strconv.ParseUint(name, 16, 64)
	return seq, err == nil && len(name) == 16
}
