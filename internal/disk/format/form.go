package format

import (
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	pagesMagicLen = 8

	// documentFixed and documentAncestor bound what a head or a checkpoint takes, without and with
	// its lineage: several times what one takes that the engine writes.
	documentFixed    = 64 << 10
	documentAncestor = 512     // its key, too
	documentRuns     = 8 << 20 // of a head with a log store, which has a line for each dead writer

	maxTraceBytes = MaxTraceRuns*20 + traceFixed + 4 // two varints in each run
)

// Form is what the objects that the writer of one disk makes must have in common with the disk.
type Form struct {
	UID     string
	Size    int64 // bytes
	Lineage []Ancestor
	// LogStore says that the disk's log is, or may be, in a second store.
	LogStore bool
}

// MaxBytes returns how many bytes an object of a kind may have that is a document, or a boot trace;
// 0: it is none of these.
func (f *Form) MaxBytes(kind KeyKind) int64 {
	switch kind {
	case KeyHead, KeyCheckpoint:
		n := int64(documentFixed)
		for _, a := range f.Lineage { // a byte of a path may take six in JSON
			n += int64(6*len(a.Path)+len(a.UID)) + documentAncestor
		}
		if kind == KeyHead && f.LogStore {
			n += documentRuns
		}
		return n
	case KeyBoot:
		return maxTraceBytes
	}
	return 0
}

// CheckForm returns nil if body is what a writer of the disk stores under a key, as far as the
// object itself and the disk's identity tell. It looks at headers and documents, and not at data.
// Corrupt: it is something else, or another disk's. Unsupported: it is of a format that this
// release doesn't know, or of a kind that no writer makes.
func (c *Codec) CheckForm(k Key, body []byte, of *Form) error {
	if limit := of.MaxBytes(k.Kind); limit > 0 && int64(len(body)) > limit {
		return corrupt("a %s of %d bytes, more than %d", k.Kind, len(body), limit)
	}
	switch k.Kind {
	case KeyLog, KeySeg:
		return checkLogForm(k, body, of)
	case KeyMap:
		if k.Name == RootName {
			return c.checkRootForm(k, body, of)
		}
		return checkPagesForm(body)
	case KeyCheckpoint:
		return checkCheckpointForm(k, body, of)
	case KeyBoot:
		_, err := DecodeTrace(body)
		return err
	}
	return unsupported("no writer of a disk makes objects of the kind %s", k.Kind)
}

func checkLogForm(k Key, body []byte, of *Form) error {
	h, err := DecodeLogHeader(body)
	if err != nil {
		return err
	}
	uid, err := ulid.ParseStrict(of.UID)
	want := KindLog
	if k.Kind == KeySeg {
		want = KindSeg
	}
	switch {
	case err != nil:
		return errs.Wrap(errs.Corrupt, err, "the disk's uid %q", of.UID)
	case h.Disk != ID(uid):
		return corrupt("it is of disk %s, not of %s", ulid.ULID(h.Disk), of.UID)
	case h.Epoch != k.Epoch || h.Seq != k.N || h.Kind != want:
		return corrupt("it is %d of kind %d of epoch %d", h.Seq, h.Kind, h.Epoch)
	case h.IsFence() && want == KindSeg:
		return corrupt("a segment is a fence")
	case int64(len(body)) != int64(h.Len())+int64(h.Body):
		return corrupt("it has %d bytes, and its header says %d", len(body),
			int64(h.Len())+int64(h.Body))
	}
	return nil
}

func (c *Codec) checkRootForm(k Key, body []byte, of *Form) error {
	if len(body) > 2*maxRootContents {
		return corrupt("a map root of %d bytes", len(body))
	}
	r, err := c.DecodeRoot(body, nil)
	switch {
	case err != nil:
		return err
	case r.Epoch != k.Epoch || uint64(r.N) != k.N:
		return corrupt("it is version %d-%d", r.Epoch, r.N)
	case !slices.Equal(r.Lineage, of.Lineage):
		return corrupt("its lineage of %d is not the disk's", len(r.Lineage))
	case r.Size > of.Size:
		return corrupt("it maps %d bytes of a disk of %d", r.Size, of.Size)
	}
	return nil
}

func checkPagesForm(body []byte) error {
	if len(body) < PagesHeaderLen || string(body[:pagesMagicLen]) != pagesMagic {
		return corrupt("it holds no map pages")
	}
	if v := le.Uint16(body[pagesMagicLen:]); v != Version {
		return unsupported("map pages of format version %d", v)
	}
	return nil
}

func checkCheckpointForm(k Key, body []byte, of *Form) error {
	c, err := DecodeCheckpoint(body)
	switch {
	case err != nil:
		return err
	case c.Name != k.Name:
		return corrupt("it is checkpoint %q", c.Name)
	case c.UID != of.UID || !slices.Equal(c.Lineage, of.Lineage):
		return corrupt("it is a checkpoint of another disk, or has another lineage")
	case c.Size > of.Size:
		return corrupt("it has %d bytes of a disk of %d", c.Size, of.Size)
	}
	return nil
}
