package format

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
)

// KeyKind is what an object of a disk is, by its key.
type KeyKind uint8

// The kinds of objects of a disk, below its path in a pool; see docs/formats/disk.md.
const (
	KeyHead       KeyKind = iota // head
	KeyOwner                     // machine.json
	KeyLog                       // log/<Epoch>/<N>
	KeySeg                       // seg/<Epoch>-<N>
	KeyMap                       // map/<Epoch>-<N>/<Name>, where Name is PagesName or RootName
	KeyCheckpoint                // ckpt/<Name>
	KeyRef                       // refs/<Name>; see RefName
	KeyPin                       // pins/<Name>
	KeyBoot                      // boot/<Epoch>, or boot/of/<Name> where there is a Name

	// The kinds of objects in a log store, below the disk's uid.

	KeyIdentity // disk
	KeyOnce     // once
	KeyRunLog   // log/<Epoch>-<Name>/<N>, where Name is the session
)

// The names of a map's two objects.
const (
	PagesName = "pages"
	RootName  = "root"
)

const (
	headName  = "head"
	ownerName = "machine.json"
	ofFolder  = "of" // in boot/

	maxRefName   = 200 // bytes; a longer one is replaced by a digest
	digestPrefix = "sha256-"

	epochDigits = 16
	shortDigits = 8
)

// WriterFolders are the folders below a disk's path in which its writer makes objects, and its
// forks read them.
var WriterFolders = [...]string{"log/", "seg/", "map/", "ckpt/", "boot/"}

// String returns the kind's name in reports. Of most kinds it is the folder in their keys.
func (k KeyKind) String() string {
	return [...]string{"head", "owner", "log", "seg", "map", "ckpt", "refs", "pins", "boot",
		"identity", "once", "log"}[k]
}

// Folder returns what the keys of a kind begin with, for the disk at path. In a log store, path is
// the disk's uid. Kinds of which a disk has one object have no folder.
func (k KeyKind) Folder(path string) string { return path + "/" + k.RelFolder() }

// RelFolder returns the folder of a kind below the disk's path, with its slash.
func (k KeyKind) RelFolder() string { return k.String() + "/" }

// Key is the key of one object of a disk, taken apart. Which fields count depends on the kind; all
// others are zero.
type Key struct {
	Epoch uint64
	N     uint64 // a sequence number, or the number of a segment or a map in its epoch
	Name  string
	Kind  KeyKind
}

// SegmentKey returns the key of a segment below the path of the disk that wrote it.
func SegmentKey(e *SegmentEntry) Key {
	if e.Kind == KindSeg {
		return Key{Kind: KeySeg, Epoch: e.Epoch, N: e.Seq}
	}
	return Key{Kind: KeyLog, Epoch: e.Epoch, N: e.Seq}
}

// MapKey returns the key of one of a map's two objects.
func MapKey(epoch uint64, n uint32, name string) Key {
	return Key{Kind: KeyMap, Epoch: epoch, N: uint64(n), Name: name}
}

// String returns the key below the disk's path; in a log store, below the disk's uid.
func (k Key) String() string { return string(k.append(make([]byte, 0, 64))) }

// In returns the whole key, for the disk at path. In a log store, path is the disk's uid.
func (k Key) In(path string) string {
	b := make([]byte, 0, len(path)+len(k.Name)+64)
	return string(k.append(append(append(b, path...), '/')))
}

func (k Key) append(b []byte) []byte {
	switch k.Kind {
	case KeyHead:
		return append(b, headName...)
	case KeyOwner:
		return append(b, ownerName...)
	case KeyIdentity:
		return append(b, "disk"...)
	case KeyOnce:
		return append(b, "once"...)
	}
	b = append(append(b, k.Kind.String()...), '/')
	switch k.Kind {
	case KeyLog:
		return appendHex(append(appendHex(b, k.Epoch, epochDigits), '/'), k.N, epochDigits)
	case KeyRunLog:
		b = append(append(appendHex(b, k.Epoch, epochDigits), '-'), k.Name...)
		return appendHex(append(b, '/'), k.N, epochDigits)
	case KeySeg:
		return k.appendVersion(b)
	case KeyMap:
		return append(append(k.appendVersion(b), '/'), k.Name...)
	case KeyBoot:
		if k.Name == "" {
			return appendHex(b, k.Epoch, epochDigits)
		}
		b = append(b, ofFolder+"/"...)
	}
	return append(b, k.Name...)
}

// appendVersion appends <epoch>-<n>.
func (k Key) appendVersion(b []byte) []byte {
	return appendHex(append(appendHex(b, k.Epoch, epochDigits), '-'), k.N, shortDigits)
}

// appendHex appends a number, padded so that keys sort by it.
func appendHex(b []byte, n uint64, digits int) []byte {
	for i := digits - 1; i > 0 && n>>(4*i) == 0; i-- {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, n, 16)
}

// ParseKey takes a key below a disk's path apart. It refuses what no disk would write: a key that
// was parsed has the same String again. Name is a copy.
func ParseKey(rel string) (k Key, ok bool) {
	folder, rest, deeper := strings.Cut(rel, "/")
	switch {
	case rel == headName:
		return Key{Kind: KeyHead}, true
	case rel == ownerName:
		return Key{Kind: KeyOwner}, true
	case !deeper:
		return Key{}, false
	}
	switch folder {
	case "log":
		ok = k.parseLog(rest)
	case "seg":
		k.Kind = KeySeg
		ok = k.parseVersion(rest)
	case "map":
		version, name, _ := strings.Cut(rest, "/")
		k.Kind = KeyMap
		ok = k.parseVersion(version) && k.parseMapName(name)
	case "boot":
		ok = k.parseBoot(rest)
	default:
		return parseNamed(folder, rest)
	}
	return k, ok && k.String() == rel
}

func (k *Key) parseLog(rest string) (ok bool) {
	epoch, n, _ := strings.Cut(rest, "/")
	k.Kind = KeyLog
	if k.Epoch, ok = parseHex(epoch, epochDigits); ok {
		k.N, ok = parseHex(n, epochDigits)
	}
	return ok
}

func (k *Key) parseMapName(name string) bool {
	for _, known := range [...]string{PagesName, RootName} {
		if name == known {
			k.Name = known // a collector keeps one for each map in the pool: this takes no memory
			return true
		}
	}
	return false
}

func (k *Key) parseBoot(rest string) (ok bool) {
	k.Kind = KeyBoot
	if name, of := strings.CutPrefix(rest, ofFolder+"/"); of {
		k.Name = strings.Clone(name)
		return isElement(name)
	}
	k.Epoch, ok = parseHex(rest, epochDigits)
	return ok
}

// parseVersion parses <epoch>-<n>.
func (k *Key) parseVersion(s string) (ok bool) {
	epoch, n, _ := strings.Cut(s, "-")
	if k.Epoch, ok = parseHex(epoch, epochDigits); ok {
		k.N, ok = parseHex(n, shortDigits)
	}
	return ok
}

// parseNamed parses the key of a document that a collector must heed.
func parseNamed(folder, name string) (Key, bool) {
	for _, kind := range [...]KeyKind{KeyCheckpoint, KeyRef, KeyPin} {
		if folder == kind.String() && isElement(name) {
			return Key{Kind: kind, Name: strings.Clone(name)}, true
		}
	}
	return Key{}, false
}

// ParseLogKey takes a key below a disk's uid in a log store apart, as ParseKey does.
func ParseLogKey(rel string) (k Key, ok bool) {
	for _, kind := range [...]KeyKind{KeyIdentity, KeyOnce} {
		if k = (Key{Kind: kind}); k.String() == rel {
			return k, true
		}
	}
	folder, rest, _ := strings.Cut(rel, "/")
	run, n, _ := strings.Cut(rest, "/")
	epoch, session, _ := strings.Cut(run, "-")
	k = Key{Kind: KeyRunLog, Name: strings.Clone(session)}
	if k.Epoch, ok = parseHex(epoch, epochDigits); ok {
		k.N, ok = parseHex(n, epochDigits)
	}
	return k, ok && folder == k.Kind.String() && session != "" && k.String() == rel
}

// LogSeq returns the sequence number of a log object by its key, in a pool or in a log store.
func LogSeq(key string) (seq uint64, ok bool) {
	return parseHex(key[strings.LastIndexByte(key, '/')+1:], epochDigits)
}

// SplitKey tells whose object a key in a pool is, by the end of it: paths of disks are arbitrary. A
// key that may also be that of a document (SplitNamed) is taken for a head or an owner's document.
func SplitKey(key string) (path string, k Key, ok bool) {
	at := len(key)
	for range 3 { // elements that a key below a path has at most
		if at = strings.LastIndexByte(key[:at], '/'); at < 0 {
			return "", Key{}, false
		}
		if k, ok = ParseKey(key[at+1:]); ok {
			return key[:at], k, true
		}
	}
	return "", Key{}, false
}

// SplitNamed is SplitKey for checkpoints, references and pins alone. The checkpoint "head" of disk
// "a" has the key of the head of a disk "a/ckpt".
func SplitNamed(key string) (path string, k Key, ok bool) {
	last := strings.LastIndexByte(key, '/')
	if last < 0 {
		return "", Key{}, false
	}
	folder := strings.LastIndexByte(key[:last], '/')
	if folder < 0 {
		return "", Key{}, false
	}
	k, ok = parseNamed(key[folder+1:last], key[last+1:])
	if !ok {
		return "", Key{}, false
	}
	return key[:folder], k, true
}

// IsDocumentName reports whether a disk has a document of that name beside its folders. Elsewhere
// the name may stand for a head: see SplitNamed.
func IsDocumentName(name string) bool { return name == headName || name == ownerName }

// HoldsNames reports whether a folder of that name has objects whose names people choose. A disk at
// a path that ends so would have the key of the document "head" of another for its head.
func HoldsNames(folder string) bool {
	switch folder {
	case KeyCheckpoint.String(), KeyRef.String(), KeyPin.String(), ofFolder:
		return true
	}
	return false
}

// RefName returns the name of the reference of a fork at a path. It is the path, escaped, or a
// digest of that where it is too long for an element of a key.
func RefName(child string) string {
	name := url.PathEscape(child)
	if len(name) > maxRefName {
		sum := sha256.Sum256([]byte(child))
		return digestPrefix + hex.EncodeToString(sum[:])
	}
	return name
}

// ChildOf returns the path of the fork that a reference's name tells, and false if the name is a
// digest or no path's.
func ChildOf(refName string) (string, bool) {
	child, err := url.PathUnescape(refName)
	ok := err == nil && ValidPath(child) && !strings.HasPrefix(refName, digestPrefix)
	return child, ok
}

// isElement reports whether s can be one element of a key.
func isElement(s string) bool { return s != "" && !strings.Contains(s, "/") }

// parseHex parses a padded number.
func parseHex(s string, digits int) (uint64, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil && len(s) == digits
}
