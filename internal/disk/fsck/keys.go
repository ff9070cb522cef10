package fsck

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// Keys, as docs/formats/disk.md has them. They are written down a second time on purpose, beside
// format.Key: a check that took the engine's word for where its objects are would be no witness
// against it. A change of the grammar must be made in both places, and the document.

func headKey(path string) string { return path + "/head" }

func mapKey(path string, epoch uint64, n uint32, what string) string {
	return fmt.Sprintf("%s/map/%016x-%08x/%s", path, epoch, n, what)
}

func logKey(path string, epoch, seq uint64) string {
	return fmt.Sprintf("%s/log/%016x/%016x", path, epoch, seq)
}

func segmentKey(path string, e *format.SegmentEntry) string {
	if e.Kind == format.KindSeg {
		return fmt.Sprintf("%s/seg/%016x-%08x", path, e.Epoch, e.Seq)
	}
	return logKey(path, e.Epoch, e.Seq)
}

// kindOf returns the kind of an object by its key below a disk's path.
func kindOf(rel string) string {
	kind, rest, deeper := strings.Cut(rel, "/")
	switch {
	case !deeper && (kind == "head" || kind == "machine.json"):
		return "head"
	case deeper && rest != "" && (kind == "log" || kind == "map" || kind == "seg" ||
		kind == "ckpt" || kind == "refs" || kind == "pins" || kind == "boot"):
		return kind
	}
	return "other"
}

// logPosition parses log/<epoch>/<seq>.
func logPosition(rel string) (format.Position, bool) {
	e, s, ok := strings.Cut(strings.TrimPrefix(rel, "log/"), "/")
	if !ok || len(e) != 16 || len(s) != 16 {
		return format.Position{}, false
	}
	epoch, err1 := strconv.ParseUint(e, 16, 64)
	seq, err2 := strconv.ParseUint(s, 16, 64)
	return format.Position{Epoch: epoch, Seq: seq}, err1 == nil && err2 == nil
}

// Keys in a log store.

func identityKey(uid string) string { return uid + "/disk" }

// onceKey is of what proves that a log store writes objects once.
func onceKey(uid string) string { return uid + "/once" }

// secondLog parses <uid>/log/<epoch>-<session>/<seq>.
func secondLog(uid, key string) (epoch uint64, session string, seq uint64, ok bool) {
	rel, ok := strings.CutPrefix(key, uid+"/log/")
	e, rest, ok2 := strings.Cut(rel, "-")
	session, s, ok3 := strings.Cut(rest, "/")
	p, ok4 := logPosition("log/" + e + "/" + s)
	return p.Epoch, session, p.Seq, ok && ok2 && ok3 && ok4
}

// segNumber parses seg/<epoch>-<n>.
func segNumber(rel string) (epoch uint64, n uint64, ok bool) {
	return mapEpoch("map/" + strings.TrimPrefix(rel, "seg/"))
}

// mapEpoch parses map/<epoch>-<n>/….
func mapEpoch(rel string) (epoch uint64, n uint64, ok bool) {
	version, _, _ := strings.Cut(strings.TrimPrefix(rel, "map/"), "/")
	e, s, found := strings.Cut(version, "-")
	if !found {
		return 0, 0, false
	}
	epoch, err1 := strconv.ParseUint(e, 16, 64)
	n, err2 := strconv.ParseUint(s, 16, 32)
	return epoch, n, err1 == nil && err2 == nil
}

func parseID(s string) (format.ID, bool) {
	id, err := ulid.ParseStrict(s)
	return format.ID(id), err == nil
}
