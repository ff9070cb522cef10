package format

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// State is whether a disk has a writer.
type State string

// A disk is open from an attach to the clean close after it, also when the writer is long dead.
const (
	StateOpen   State = "open"
	StateClosed State = "closed"
)

// How a disk acknowledges a flush. ModeDurable: when its log object and all before it are in the
// store. ModeBounded: when a local journal has it, and no write that the store lacks is older than
// the bound.
const (
	ModeDurable = "durable"
	ModeBounded = "bounded"
)

// FeatureBounded is the incompatible feature of a head with a bound: a writer that doesn't know it
// would not ask for the journal which may hold acknowledged writes.
const FeatureBounded = "bounded"

// Bounds of the bound, in milliseconds.
const (
	MinBoundMS = 100
	MaxBoundMS = 3_600_000
)

// RootRef names a map root: map/<Epoch>-<N>/root of a disk of the lineage.
type RootRef struct {
	Lineage int    `json:"lineage"` // index in the lineage of the document that holds this
	Epoch   uint64 `json:"epoch"`
	N       uint32 `json:"n"`
	Size    int64  `json:"size"` // of the root object, bytes
	// of the pages object of the same version, bytes; 0: there is none
	PagesSize int64  `json:"pages_size"`
	CRC       uint32 `json:"crc32c"` // of the root object
}

// Parent says which checkpoint a disk was forked from.
type Parent struct {
	Path       string `json:"path"`
	UID        string `json:"uid"`
	Checkpoint string `json:"checkpoint"`
}

// Head is the one mutable object of a disk. Every write of it carries a fresh nonce, so that no
// body is ever repeated and a lost response can be told from a lost race.
type Head struct {
	Version int `json:"version"`
	// a reader that doesn't know one must refuse the disk
	Features []string `json:"features,omitempty"`
	ID       string   `json:"id"` // the owner's name for the disk
	// ULID; unique to this disk, also after a path is reused
	UID  string `json:"uid"`
	Size int64  `json:"size"` // bytes, a multiple of BlockSize
	Mode string `json:"mode"`
	// of mode bounded: the oldest acknowledged write that the store may lack
	BoundMS    int64      `json:"bound_ms,omitempty"`
	State      State      `json:"state"`
	Epoch      uint64     `json:"epoch"`      // of the last writer; 0: never attached
	Generation uint64     `json:"generation"` // of the last writer
	Holder     string     `json:"holder,omitempty"`
	Session    string     `json:"session,omitempty"` // ULID of the last attach
	Nonce      string     `json:"nonce"`             // ULID of this write
	Root       *RootRef   `json:"root,omitempty"`    // newest map; nil: nothing is mapped
	Log        Position   `json:"log"`               // where replay starts
	Lineage    []Ancestor `json:"lineage"`           // this disk first
	Parent     *Parent    `json:"parent,omitempty"`
	// packed segments of this epoch with a lower number are in the map, or dead
	Packed uint32 `json:"packed,omitempty"`
	Boot   uint64 `json:"boot,omitempty"` // epoch of the newest boot trace; 0: none
	// where the log is; nil: beside the disk's other objects
	LogStore   *LogStore   `json:"log_store,omitempty"`
	Encryption *Encryption `json:"encryption,omitempty"`
	Created    time.Time   `json:"created"`
	Updated    time.Time   `json:"updated"`
}

// Checkpoint is a named, immutable pointer to a map root.
type Checkpoint struct {
	Version  int        `json:"version"`
	Features []string   `json:"features,omitempty"`
	Name     string     `json:"name"`
	UID      string     `json:"uid"` // of the disk
	Nonce    string     `json:"nonce"`
	Size     int64      `json:"size"` // of the disk at that point, bytes
	Mode     string     `json:"mode"`
	Root     *RootRef   `json:"root,omitempty"`
	Lineage  []Ancestor `json:"lineage"`
	Created  time.Time  `json:"created"`
}

// Ref says that a fork depends on a disk.
type Ref struct {
	Version    int       `json:"version"`
	Child      string    `json:"child"` // path in the pool
	Checkpoint string    `json:"checkpoint"`
	Created    time.Time `json:"created"`
}

// Encode returns a document's stored form.
func Encode(doc any) ([]byte, error) {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode")
	}
	return append(b, '\n'), nil
}

// DecodeHead decodes and checks a head.
func DecodeHead(b []byte) (*Head, error) {
	var h Head
	if err := decodeStrict(b, &h, "head", FeatureEncryption, FeatureBounded,
		FeatureLogStore); err != nil {
		return nil, err
	}
	switch {
	case h.State != StateOpen && h.State != StateClosed:
		return nil, corrupt("head: bad state %q", h.State)
	case h.Nonce == "" || h.UID == "" || h.Log.Seq == 0:
		return nil, corrupt("head: nonce, uid or log position missing")
	}
	if err := h.checkMode(); err != nil {
		return nil, err
	}
	if err := h.checkLogStore(); err != nil {
		return nil, err
	}
	if (h.Encryption != nil) != slices.Contains(h.Features, FeatureEncryption) {
		return nil, corrupt("head: encryption and features disagree")
	}
	if h.Encryption != nil {
		if err := h.Encryption.check(); err != nil {
			return nil, err
		}
	}
	return &h, checkMap("head", h.Size, h.Root, h.Lineage)
}

// Encrypted reports whether the disk of a checkpoint is. The keys are in its head.
func (c *Checkpoint) Encrypted() bool { return slices.Contains(c.Features, FeatureEncryption) }

// SetMode sets how flushes are acknowledged, with the feature that goes with it. boundMS is 0 for
// ModeDurable.
func (h *Head) SetMode(mode string, boundMS int64) {
	h.Mode, h.BoundMS = mode, boundMS
	h.Features = slices.DeleteFunc(slices.Clone(h.Features),
		func(f string) bool { return f == FeatureBounded })
	if mode == ModeBounded {
		h.Features = append(h.Features, FeatureBounded)
	}
	if len(h.Features) == 0 {
		h.Features = nil
	}
}

func (h *Head) checkMode() error {
	switch h.Mode {
	case ModeDurable:
		if h.BoundMS != 0 || slices.Contains(h.Features, FeatureBounded) {
			return corrupt("head: a bound in mode %s", h.Mode)
		}
	case ModeBounded:
		if h.BoundMS < MinBoundMS || h.BoundMS > MaxBoundMS ||
			!slices.Contains(h.Features, FeatureBounded) {
			return corrupt("head: bad bound of %d ms", h.BoundMS)
		}
	default:
		return unsupported("disk mode %q", h.Mode)
	}
	return nil
}

// DecodeCheckpoint decodes and checks a checkpoint.
func DecodeCheckpoint(b []byte) (*Checkpoint, error) {
	var c Checkpoint
	if err := decodeStrict(b, &c, "checkpoint", FeatureEncryption); err != nil {
		return nil, err
	}
	return &c, checkMap("checkpoint", c.Size, c.Root, c.Lineage)
}

// DecodeRef decodes a fork's reference.
func DecodeRef(b []byte) (*Ref, error) {
	var r Ref
	return &r, decodeStrict(b, &r, "reference")
}

func checkMap(what string, size int64, root *RootRef, lineage []Ancestor) error {
	if size <= 0 || size > MaxSize || size%BlockSize != 0 {
		return corrupt("%s: bad size %d", what, size)
	}
	if len(lineage) == 0 || len(lineage) > MaxLineage {
		return corrupt("%s: lineage of %d", what, len(lineage))
	}
	for _, a := range lineage {
		if !ValidPath(a.Path) || a.UID == "" {
			return corrupt("%s: bad ancestor %q", what, a.Path)
		}
	}
	if root != nil && (root.Lineage < 0 || root.Lineage >= len(lineage) || root.Size <= 0 ||
		root.Size > 2*maxRootContents) {
		return corrupt("%s: bad root reference", what)
	}
	return nil
}

// ValidPath reports whether p is a relative path that stays where it is: no empty, "." or ".."
// element.
func ValidPath(p string) bool {
	if p == "" || len(p) > maxPath {
		return false
	}
	for el := range strings.SplitSeq(p, "/") {
		if el == "" || el == "." || el == ".." {
			return false
		}
	}
	return !strings.ContainsAny(p, "\x00\n\r")
}

// decodeStrict refuses newer versions and unknown features by name before it refuses unknown
// fields, so that a new format is called new and not broken.
func decodeStrict(b []byte, doc any, what string, known ...string) error {
	var v struct {
		Version  int      `json:"version"`
		Features []string `json:"features"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return errs.Wrap(errs.Corrupt, err, "decode %s", what)
	}
	if v.Version != Version {
		return unsupported("%s of format version %d", what, v.Version)
	}
	if unknown := slices.DeleteFunc(v.Features,
		func(f string) bool { return slices.Contains(known, f) }); len(unknown) > 0 {
		return unsupported("%s needs %s", what, strings.Join(unknown, ", "))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(doc); err != nil {
		return errs.Wrap(errs.Corrupt, err, "decode %s", what)
	}
	if d.More() {
		return corrupt("%s: more than one document", what)
	}
	return nil
}
