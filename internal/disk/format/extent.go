package format

// Loc says where a block is: a segment index (24 bits) and a block in it (16 bits). Zero is
// "nowhere": the block was never written, or was trimmed.
type Loc uint64

// NewLoc returns the location of a block of a segment.
func NewLoc(seg, block uint32) Loc { return Loc(uint64(seg)<<16 | uint64(block&0xffff)) }

// Segment returns the segment index.
func (l Loc) Segment() uint32 { return uint32(l>>16) & (MaxSegments - 1) }

// Block returns the block in the segment.
func (l Loc) Block() uint32 { return uint32(l & 0xffff) }

// Extent maps up to 1024 adjacent blocks of a region to adjacent blocks of a segment, in one word:
//
//	bits 54..63 first block in the region    bits 44..53 number of blocks - 1
//	bits 40..43 flags (0 in stored pages)    bits  0..39 Loc of the first block
//
// Extents order by their first block when compared as integers.
type Extent uint64

// ExtentZero marks, in memory only, blocks that are known to be zero in a region whose page was not
// read yet.
const ExtentZero Extent = 1 << 40

// NewExtent returns an extent. start+count must not exceed RegionBlocks, and count must be
// positive.
func NewExtent(start, count uint32, loc Loc) Extent {
	return Extent(uint64(start)<<54 | uint64(count-1)<<44 | uint64(loc))
}

// Start returns the first block in the region.
func (e Extent) Start() uint32 { return uint32(e >> 54) }

// Count returns the number of blocks, 1 to 1024.
func (e Extent) Count() uint32 { return uint32(e>>44)&0x3ff + 1 }

// End returns the block after the last.
func (e Extent) End() uint32 { return e.Start() + e.Count() }

// Loc returns where the first block is.
func (e Extent) Loc() Loc { return Loc(e & (1<<40 - 1)) }

// IsZero reports whether the extent is a mark of known zeros.
func (e Extent) IsZero() bool { return e&ExtentZero != 0 }

// Slice returns the part of e from block from to block to of the region; both must be within e.
func (e Extent) Slice(from, to uint32) Extent {
	loc := e.Loc()
	if !e.IsZero() {
		loc += Loc(from - e.Start())
	}
	return NewExtent(from, to-from, loc) | e&ExtentZero
}

// Joins reports whether next continues e, in the region and in the segment.
func (e Extent) Joins(next Extent) bool {
	if e.End() != next.Start() || e.IsZero() != next.IsZero() {
		return false
	}
	return e.IsZero() || (e.Loc()+Loc(e.Count()) == next.Loc() &&
		e.Loc().Segment() == next.Loc().Segment())
}
