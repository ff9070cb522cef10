package format

// PageRef says where a page is stored: bytes Offset to Offset+Length of map/<Epoch>-<N>/pages of a
// disk of the lineage. The zero value (no Length) is "no page": nothing is mapped there. It is
// comparable.
type PageRef struct {
	Epoch   uint64
	N       uint32
	Offset  uint32
	Length  uint32
	CRC     uint32 // of the stored bytes
	Key     uint32 // key id, 0: neither encrypted nor signed
	Lineage uint16
	Flags   uint16
}

// Flags of a page reference. PageZstd says that the page is compressed, PageSigned that its key
// vouches for it and doesn't encrypt it.
const (
	PageZstd   uint16 = 1 << 0
	PageSigned uint16 = 1 << 1
	pageFlags         = PageZstd | PageSigned
)

const (
	pageRefLen  = 32
	segEntryLen = 48
	pageHeader  = 8
	pageRegion  = 'R'
	pageDir     = 'D'
	pageSegs    = 'S'
	dirEntryLen = 4 + pageRefLen
)

// SegmentEntry describes one segment of the segment table. Kind KindFree is an unused index.
type SegmentEntry struct {
	Epoch     uint64
	Seq       uint64
	Size      uint64 // of the object, bytes
	HeaderLen uint32
	Live      uint32 // blocks that the map still refers to
	Blocks    uint32 // blocks written
	Lineage   uint16
	Kind      uint8
	Bucket    uint8 // 0: the disk's own store; others are reserved for a log bucket
}

func putPageRef(b []byte, r PageRef) {
	le.PutUint64(b, r.Epoch)
	le.PutUint32(b[8:], r.N)
	le.PutUint32(b[12:], r.Offset)
	le.PutUint32(b[16:], r.Length)
	le.PutUint32(b[20:], r.CRC)
	le.PutUint32(b[24:], r.Key)
	le.PutUint16(b[28:], r.Lineage)
	le.PutUint16(b[30:], r.Flags)
}

func getPageRef(b []byte) (PageRef, error) {
	r := PageRef{
		Epoch: le.Uint64(b), N: le.Uint32(b[8:]), Offset: le.Uint32(b[12:]),
		Length: le.Uint32(b[16:]),
		CRC:    le.Uint32(b[20:]), Key: le.Uint32(b[24:]), Lineage: le.Uint16(b[28:]),
		Flags: le.Uint16(b[30:]),
	}
	if r.Flags&^pageFlags != 0 || (r.Key == 0 && r.Flags&PageSigned != 0) {
		return r, unsupported("page with flags %#x and key %d", r.Flags, r.Key)
	}
	if r.Lineage >= MaxLineage || r.Length == 0 || r.Length > maxPageContents+trailerLen {
		return r, corrupt("bad page reference %+v", r)
	}
	return r, nil
}

func appendPageHeader(b []byte, kind byte, count int, index uint32) []byte {
	b = append(b, kind, Version)
	b = le.AppendUint16(b, uint16(count))
	return le.AppendUint32(b, index)
}

// checkPage checks the header of a page of entries of a size, and returns the entries.
func checkPage(b []byte, kind byte, index uint32, size, limit int) ([]byte, int, error) {
	if len(b) < pageHeader || b[0] != kind || le.Uint32(b[4:]) != index {
		return nil, 0, corrupt("not page %c %d", kind, index)
	}
	if b[1] != Version {
		return nil, 0, unsupported("map page of format version %d", b[1])
	}
	count := int(le.Uint16(b[2:]))
	if count > limit || len(b) != pageHeader+count*size {
		return nil, 0, corrupt("page %c %d of %d bytes has %d entries", kind, index, len(b), count)
	}
	return b[pageHeader:], count, nil
}

// AppendRegionPage appends the page of region index: extents in order, without marks.
func AppendRegionPage(b []byte, index uint32, extents []Extent) []byte {
	b = appendPageHeader(b, pageRegion, len(extents), index)
	for _, e := range extents {
		b = le.AppendUint64(b, uint64(e))
	}
	return b
}

// DecodeRegionPage appends the extents of a region page to dst.
func DecodeRegionPage(dst []Extent, b []byte, index uint32) ([]Extent, error) {
	b, count, err := checkPage(b, pageRegion, index, 8, RegionBlocks)
	if err != nil {
		return nil, err
	}
	var end uint32
	for i := range count {
		e := Extent(le.Uint64(b[i*8:]))
		if e.Start() < end || e.End() > RegionBlocks || e>>40&0xf != 0 || e.Loc().Segment() == 0 ||
			e.Loc().Block()+e.Count() > MaxSegBlocks {
			return nil, corrupt("bad extent %d of region %d", i, index)
		}
		end = e.End()
		dst = append(dst, e)
	}
	return dst, nil
}

// AppendDirPage appends the directory page index; refs has DirRegions entries.
func AppendDirPage(b []byte, index uint32, refs []PageRef) []byte {
	return appendRefPage(b, pageDir, index, refs)
}

// DecodeDirPage fills refs (DirRegions entries, zero before) from a directory page.
func DecodeDirPage(refs []PageRef, b []byte, index uint32) error {
	b, count, err := checkPage(b, pageDir, index, dirEntryLen, DirRegions)
	if err != nil {
		return err
	}
	last := -1
	for i := range count {
		slot := int(le.Uint32(b[i*dirEntryLen:]))
		if slot <= last || slot >= len(refs) {
			return corrupt("bad slot %d in directory %d", slot, index)
		}
		last = slot
		if refs[slot], err = getPageRef(b[i*dirEntryLen+4:]); err != nil {
			return err
		}
	}
	return nil
}

func appendRefPage(b []byte, kind byte, index uint32, refs []PageRef) []byte {
	count := 0
	for i := range refs {
		if refs[i].Length > 0 {
			count++
		}
	}
	b = appendPageHeader(b, kind, count, index)
	return appendRefs(b, refs)
}

// appendRefs appends (index, reference) of each reference that is not empty.
func appendRefs(b []byte, refs []PageRef) []byte {
	var entry [dirEntryLen]byte
	for i := range refs {
		if refs[i].Length > 0 {
			le.PutUint32(entry[:], uint32(i))
			putPageRef(entry[4:], refs[i])
			b = append(b, entry[:]...)
		}
	}
	return b
}

// AppendSegPage appends the segment-table page index, cut after the last used entry.
func AppendSegPage(b []byte, index uint32, entries []SegmentEntry) []byte {
	for len(entries) > 0 && entries[len(entries)-1].Kind == KindFree {
		entries = entries[:len(entries)-1]
	}
	b = appendPageHeader(b, pageSegs, len(entries), index)
	for _, e := range entries {
		var x [segEntryLen]byte
		le.PutUint64(x[:], e.Epoch)
		le.PutUint64(x[8:], e.Seq)
		le.PutUint64(x[16:], e.Size)
		le.PutUint32(x[24:], e.HeaderLen)
		le.PutUint32(x[28:], e.Live)
		le.PutUint32(x[32:], e.Blocks)
		le.PutUint16(x[36:], e.Lineage)
		x[38], x[39] = e.Kind, e.Bucket
		b = append(b, x[:]...) // 40..47 reserved
	}
	return b
}

// DecodeSegPage fills entries (SegPageEntries, zero before) from a segment-table page.
func DecodeSegPage(entries []SegmentEntry, b []byte, index uint32) error {
	b, count, err := checkPage(b, pageSegs, index, segEntryLen, len(entries))
	if err != nil {
		return err
	}
	for i := range count {
		x := b[i*segEntryLen:]
		e := SegmentEntry{
			Epoch: le.Uint64(x), Seq: le.Uint64(x[8:]), Size: le.Uint64(x[16:]),
			HeaderLen: le.Uint32(x[24:]),
			Live:      le.Uint32(x[28:]), Blocks: le.Uint32(x[32:]), Lineage: le.Uint16(x[36:]),
			Kind: x[38], Bucket: x[39],
		}
		if e.Kind > KindSeg || e.Bucket != 0 || le.Uint64(x[40:]) != 0 {
			return unsupported("segment entry of kind %d in bucket %d", e.Kind, e.Bucket)
		}
		if e.Kind != KindFree && (e.Lineage >= MaxLineage || e.Live > e.Blocks ||
			e.Blocks > MaxSegBlocks ||
			e.HeaderLen < LogFixedLen || uint64(e.HeaderLen) > e.Size) {
			return corrupt("bad segment entry %d of page %d", i, index)
		}
		entries[i] = e
	}
	return nil
}

// AppendStored appends the stored form of page contents to object and returns its reference, which
// lacks the version and the lineage (0). The key is nil on a disk in the clear; else it encrypts a
// region page, and signs any other.
func (c *Codec) AppendStored(object, contents []byte, key *PageKey) ([]byte, PageRef) {
	start := len(object)
	object, packed := c.pack(object, contents)
	r := PageRef{Offset: uint32(start)}
	if packed {
		r.Flags = PageZstd
	}
	if key != nil {
		r.Key = key.id
		signed := contents[0] != pageRegion
		if signed {
			r.Flags |= PageSigned
		}
		object = key.seal(object, start, signed, key.aad('P', r.place()))
	}
	r.Length, r.CRC = uint32(len(object)-start), CRC(object[start:])
	return object, r
}

// place is what a page is bound to, besides its key.
func (r *PageRef) place() []byte {
	return le.AppendUint16(le.AppendUint32(make([]byte, 0, 8), r.Offset), r.Flags)
}

// DecodeStored checks a stored page against its reference and returns its contents, appended to
// dst. The key is that of Keys.Page. Without one, pages in the clear are decoded, also signed ones,
// whose signature is not looked at then; one that is encrypted is Denied.
func (c *Codec) DecodeStored(dst, stored []byte, r PageRef, key *PageKey) ([]byte, error) {
	if len(stored) != int(r.Length) || CRC(stored) != r.CRC {
		return nil, corrupt("map page checksum mismatch")
	}
	signed := r.Flags&PageSigned != 0
	switch {
	case key == nil && r.Key == 0:
	case key == nil && !signed:
		return nil, noKey("map page")
	case key == nil && len(stored) < trailerLen:
		return nil, corrupt("signed map page of %d bytes", len(stored))
	case key == nil:
		stored = stored[:len(stored)-trailerLen]
	case r.Key != key.id:
		return nil, corrupt("map page is under key %d, not %d", r.Key, key.id)
	default:
		var err error
		if stored, err = key.open(stored, signed, key.aad('P', r.place())); err != nil {
			return nil, err
		}
	}
	dst, err := c.unpack(dst, stored, r.Flags&PageZstd != 0, -1, maxPageContents)
	if err == nil && signed && len(dst) > 0 && dst[0] == pageRegion {
		return nil, corrupt("region page in the clear on an encrypted disk")
	}
	return dst, err
}
