package journal

import (
	"hash/crc32"

	"github.com/cespare/xxhash/v2"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Kinds of records. A pad fills the rest of a page after a sync.
const (
	Data uint8 = 1
	Zero uint8 = 2
	pad  uint8 = 3
)

const (
	recordHeader = 64
	// MaxData bounds the content of one record, in bytes.
	MaxData   = 1 << 20
	maxBlocks = format.MaxBlocks
)

// Record is one write.
type Record struct {
	Seq    uint64 // of the log object that the write belongs to
	Kind   uint8  // Data or Zero
	Block  uint64
	Count  uint64
	Blocks []byte // content, for Data; valid until the next record is read
}

// recordInfo is a record's fixed part:
//
//	0  4  checksum of all that follows, and of the content     4  4  length in bytes with both
//	8  8  number   16  8  seq   24  8  block   32  8  count
//	40  1  kind   41  7  zero   48 16  session
type recordInfo struct {
	sum    uint32
	length uint32
	number uint64
	Record
}

// putRecord writes the fixed part without the checksum, which sealRecord adds.
func putRecord(b []byte, session format.ID, number uint64, length int, r *Record) {
	clear(b[:recordHeader])
	le.PutUint32(b[4:], uint32(length)) //nolint:gosec // at most MaxData and a header
	le.PutUint64(b[8:], number)
	le.PutUint64(b[16:], r.Seq)
	le.PutUint64(b[24:], r.Block)
	le.PutUint64(b[32:], r.Count)
	b[40] = r.Kind
	copy(b[48:], session[:])
}

// sealRecord adds the checksum to a complete record.
func sealRecord(b []byte) { le.PutUint32(b, checksum(versionHash, b)) }

// checksum returns what a record's first field has to be, in a journal of that version.
//
// In version 1 it is a CRC32C. Content that ends in its own CRC32C, as records of databases do,
// adds a constant to it: a torn record, with content of an earlier lap under its header, passes for
// whole. So it is the lower half of an XXH64 now, of which nothing of the kind is known.
func checksum(version uint32, record []byte) uint32 {
	if version == versionCRC {
		return crc32.Checksum(record[4:], castagnoli)
	}
	return uint32(xxhash.Sum64(record[4:])) //nolint:gosec // the lower half is meant
}

// decodeInfo decodes a fixed part that must be record number of session. Corrupt is the end of what
// is valid.
func decodeInfo(b []byte, session format.ID, number uint64) (recordInfo, error) {
	if len(b) < recordHeader {
		return recordInfo{}, errs.New(errs.Corrupt, "journal record of %d bytes", len(b))
	}
	r := recordInfo{sum: le.Uint32(b), length: le.Uint32(b[4:]), number: le.Uint64(b[8:]),
		Record: Record{Seq: le.Uint64(b[16:]), Block: le.Uint64(b[24:]),
			Count: le.Uint64(b[32:]), Kind: b[40]}}
	content := int64(r.length) - recordHeader
	ok := format.ID(b[48:64]) == session && r.number == number && content >= 0
	for _, z := range b[41:48] {
		ok = ok && z == 0
	}
	switch r.Kind {
	case Data:
		ok = ok && r.Count > 0 && content <= MaxData && uint64(content) == r.Count*format.BlockSize
	case Zero:
		ok = ok && r.Count > 0 && content == 0
	case pad:
		ok = ok && r.Count == 0 && content < pageSize && content%recordHeader == 0
	default:
		ok = false
	}
	if !ok || r.Block >= maxBlocks || r.Count > maxBlocks-r.Block {
		return recordInfo{}, errs.New(errs.Corrupt, "no journal record")
	}
	return r, nil
}
