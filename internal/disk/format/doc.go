// Package format holds the disk's stored formats as pure codecs: no I/O, no clock, no goroutine.
// docs/formats/disk.md is the specification; the golden files in internal/disk/testdata hold both
// to it.
//
// Invariants:
//
//   - Every decoder bounds what it allocates by what it was given, and never panics on any input.
//   - Nothing is returned that its CRC32C (Castagnoli) does not cover.
//   - All integers are little-endian. Reserved fields are written as zero and refused otherwise, so
//     that a later version can give them a meaning that this one can't misread.
//   - A lineage index in a stored page counts from the disk that owns the object which holds the
//     page. A disk's lineage is itself followed by its parent's lineage, so that a reader at a
//     distance d down the line of forks adds d. Stored pages are therefore valid in every fork,
//     unchanged.
package format

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Geometry of version 1.
const (
	Version         = 1
	BlockSize       = 4096                         // bytes
	FrameBlocks     = 16                           // blocks in a full frame
	FrameSize       = FrameBlocks * BlockSize      // bytes of content in a full frame
	RegionBlocks    = 1024                         // blocks that one region page maps (4 MiB)
	DirRegions      = 1024                         // regions that one directory page maps (4 GiB)
	SegPageEntries  = 1024                         // segments in one segment-table page
	MaxSegments     = 1 << 24                      // segment indexes; 0 is "none"
	MaxSegBlocks    = 1 << 16                      // blocks in one segment
	MaxBlocks       = 1 << 32                      // blocks in a disk (16 TiB)
	MaxSize         = int64(MaxBlocks) * BlockSize // bytes
	MaxLineage      = 4096                         // disks in a lineage
	maxPath         = 1024                         // bytes in a lineage path
	DirBlocks       = DirRegions * RegionBlocks    // blocks that one directory page maps
	maxPageContents = 1 << 20                      // bytes of one page before compression
	maxRootContents = 16 << 20                     // bytes of a root before compression
)

// ID is a ULID in binary: 48 bits of milliseconds, then randomness.
type ID [16]byte

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// CRC returns the CRC32C of b.
func CRC(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func corrupt(f string, args ...any) error { return errs.New(errs.Corrupt, f, args...) }

func unsupported(f string, args ...any) error {
	return errs.New(errs.Unsupported, f, args...).WithRemedy("use a newer release of sluice")
}
