package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	magic       = "SLUIJRNL"
	pageSize    = 4096
	headerPages = 2
	headerUsed  = 168 // bytes of a header page, with its CRC
)

// Versions say how the records in the ring are checked; see checksum. A header that needs none has
// the oldest one, so that a release before may use the journal.
const (
	versionCRC  uint32 = 1
	versionHash uint32 = 2 // what Begin writes
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// Session names one attachment of a disk.
type Session struct {
	Epoch uint64
	ID    format.ID
}

// Mark is a place between two records.
type Mark struct {
	Pos    uint64 // bytes since the session began; the ring holds them modulo its size
	Record uint64 // number of the next record
}

// header says whose records the ring holds.
type header struct {
	version uint32
	count   uint64 // of header writes; the larger one is the newer
	ring    uint64 // bytes of the ring
	disk    format.ID
	source  Session
	claims  [2]Session // of recoveries; zero: none
	tail    Mark       // the first record that may still be needed
}

//	0  8  magic      8  4  version   12  4  CRC of the 168 bytes with this field zero
//
// 16  8  count     24  8  ring      32 16  disk
// 48 24  source    72 48  claims   120  8  tail position   128  8  tail record   136 32  zero
func (h *header) encode() []byte {
	b := make([]byte, pageSize)
	copy(b, magic)
	le.PutUint32(b[8:], h.version)
	le.PutUint64(b[16:], h.count)
	le.PutUint64(b[24:], h.ring)
	copy(b[32:], h.disk[:])
	for i, s := range []Session{h.source, h.claims[0], h.claims[1]} {
		le.PutUint64(b[48+24*i:], s.Epoch)
		copy(b[56+24*i:], s.ID[:])
	}
	le.PutUint64(b[120:], h.tail.Pos)
	le.PutUint64(b[128:], h.tail.Record)
	le.PutUint32(b[12:], crc32.Checksum(b[:headerUsed], castagnoli))
	return b
}

// decodeHeader decodes one header page. Corrupt is anything that is none, Unsupported one of a
// newer format.
func decodeHeader(b []byte) (*header, error) {
	if len(b) < headerUsed || string(b[:8]) != magic {
		return nil, errs.New(errs.Corrupt, "no journal header")
	}
	c := make([]byte, headerUsed)
	copy(c, b)
	le.PutUint32(c[12:], 0)
	if crc32.Checksum(c, castagnoli) != le.Uint32(b[12:]) {
		return nil, errs.New(errs.Corrupt, "journal header fails its checksum")
	}
	v := le.Uint32(c[8:])
	if v != versionCRC && v != versionHash {
		return nil, errs.New(errs.Unsupported, "journal of format version %d", v).
			WithRemedy("use a newer release of sluice")
	}
	h := &header{version: v, count: le.Uint64(c[16:]), ring: le.Uint64(c[24:]),
		disk: format.ID(c[32:48]),
		tail: Mark{Pos: le.Uint64(c[120:]), Record: le.Uint64(c[128:])}}
	for i, s := range []*Session{&h.source, &h.claims[0], &h.claims[1]} {
		s.Epoch, s.ID = le.Uint64(c[48+24*i:]), format.ID(c[56+24*i:72+24*i])
	}
	if h.tail.Pos%recordHeader != 0 || h.source.Epoch == 0 {
		return nil, errs.New(errs.Corrupt, "journal header without a source, or with a bad tail")
	}
	return h, nil
}

// names reports whether a head that names s is believed.
func (h *header) names(s Session) bool {
	return s.Epoch > 0 && (s == h.source || s == h.claims[0] || s == h.claims[1])
}
