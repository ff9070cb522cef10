package format

import "bytes"

const (
	rootMagic  = "SLUIROOT"
	pagesMagic = "SLUIPAGE"
	rootFixed  = 40
	// PagesHeaderLen is the length of the header of a pages object, in bytes.
	PagesHeaderLen = 32
	rootZstd       = uint16(1)
	rootSigned     = uint16(2)
)

// Ancestor is one disk of a lineage: where it is in the pool, and which one it was when it was
// forked.
type Ancestor struct {
	Path string `json:"path"`
	UID  string `json:"uid"`
}

// Position is a place in a disk's logs: all objects before Seq in Epoch, and all of earlier epochs,
// are covered. Sequence numbers start at 1.
type Position struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Root is the top of one checkpoint of a block map. Its lineage indexes count from its own disk.
type Root struct {
	Nonce    ID
	Size     int64 // of the disk, bytes
	Epoch    uint64
	N        uint32 // the version is Epoch-N
	Position Position
	Created  int64  // Unix milliseconds
	NextSeg  uint32 // first segment index never used
	Mapped   uint64 // blocks mapped
	Lineage  []Ancestor
	Dirs     []PageRef // by directory index; zero where nothing is mapped
	Segs     []PageRef // by segment-table page
}

// EncodeRoot returns the stored form of a root, signed by the key unless that is nil.
func (c *Codec) EncodeRoot(r *Root, key *PageKey) []byte {
	b := make([]byte, 0, 256+dirEntryLen*8)
	b = le.AppendUint64(b, uint64(r.Size))
	b = le.AppendUint64(b, r.Epoch)
	b = le.AppendUint32(b, r.N)
	b = le.AppendUint32(b, r.NextSeg)
	b = le.AppendUint64(b, r.Position.Epoch)
	b = le.AppendUint64(b, r.Position.Seq)
	b = le.AppendUint64(b, uint64(r.Created))
	b = le.AppendUint64(b, r.Mapped)
	b = le.AppendUint32(b, uint32(len(r.Lineage)))
	b = le.AppendUint32(b, uint32(countRefs(r.Dirs)))
	b = le.AppendUint32(b, uint32(countRefs(r.Segs)))
	b = le.AppendUint32(b, 0)
	for _, a := range r.Lineage {
		b = le.AppendUint16(b, uint16(len(a.Path)))
		b = append(b, a.Path...)
		b = le.AppendUint16(b, uint16(len(a.UID)))
		b = append(b, a.UID...)
	}
	b = appendRefs(b, r.Dirs)
	b = appendRefs(b, r.Segs)

	out := make([]byte, rootFixed, rootFixed+len(b)/2)
	out, packed := c.pack(out, b)
	copy(out, rootMagic)
	le.PutUint16(out[8:], Version)
	if packed {
		le.PutUint16(out[10:], rootZstd)
	}
	le.PutUint32(out[12:], uint32(len(b)))
	copy(out[20:36], r.Nonce[:])
	if key != nil {
		le.PutUint16(out[10:], le.Uint16(out[10:])|rootSigned)
		out = key.seal(out, rootFixed, true, key.rootAAD(out))
	}
	le.PutUint32(out[16:], CRC(out[rootFixed:]))
	le.PutUint32(out[36:], CRC(out[:36]))
	return out
}

// rootAAD binds a root's content to its header, but for the checksums.
func (p *PageKey) rootAAD(b []byte) []byte {
	return append(p.aad('R', b[8:16]), b[20:36]...)
}

func countRefs(refs []PageRef) int {
	n := 0
	for i := range refs {
		if refs[i].Length > 0 {
			n++
		}
	}
	return n
}

// DecodeRoot checks and decodes a root. The key is that of Keys.Root; without one a signature is
// not looked at.
func (c *Codec) DecodeRoot(b []byte, key *PageKey) (*Root, error) {
	if len(b) < rootFixed || !bytes.Equal(b[:8], []byte(rootMagic)) {
		return nil, corrupt("not a map root")
	}
	if v := le.Uint16(b[8:]); v != Version {
		return nil, unsupported("map root of format version %d", v)
	}
	if CRC(b[:36]) != le.Uint32(b[36:]) || CRC(b[rootFixed:]) != le.Uint32(b[16:]) {
		return nil, corrupt("map root checksum mismatch")
	}
	flags, rawLen := le.Uint16(b[10:]), le.Uint32(b[12:])
	if flags&^(rootZstd|rootSigned) != 0 {
		return nil, unsupported("map root with flags %#x", flags)
	}
	if rawLen > maxRootContents {
		return nil, corrupt("map root of %d bytes", rawLen)
	}
	stored, err := rootContent(b, key)
	if err != nil {
		return nil, err
	}
	raw, err := c.unpack(nil, stored, flags&rootZstd != 0, int(rawLen), maxRootContents)
	if err != nil {
		return nil, err
	}
	r := &Root{}
	copy(r.Nonce[:], b[20:])
	return r, r.decode(&reader{b: raw})
}

// rootContent returns the stored content of a root without its signature, which it checks.
func rootContent(b []byte, key *PageKey) ([]byte, error) {
	signed := le.Uint16(b[10:])&rootSigned != 0
	switch {
	case !signed && key == nil:
		return b[rootFixed:], nil
	case !signed:
		return nil, corrupt("map root is not signed, and its disk is encrypted")
	case len(b) < rootFixed+trailerLen:
		return nil, corrupt("signed map root of %d bytes", len(b))
	case key == nil:
		return b[rootFixed : len(b)-trailerLen], nil
	}
	return key.open(b[rootFixed:], true, key.rootAAD(b))
}

func (r *Root) decode(d *reader) error {
	r.Size = int64(d.u64())
	r.Epoch, r.N, r.NextSeg = d.u64(), d.u32(), d.u32()
	r.Position = Position{Epoch: d.u64(), Seq: d.u64()}
	r.Created, r.Mapped = int64(d.u64()), d.u64()
	lineage, dirs, segs := d.u32(), d.u32(), d.u32()
	d.u32()
	if d.bad || r.Size <= 0 || r.Size > MaxSize || lineage == 0 || lineage > MaxLineage ||
		r.NextSeg > MaxSegments {
		return corrupt("bad map root")
	}
	for range lineage {
		a := Ancestor{Path: string(d.take(int(d.u16()))), UID: string(d.take(int(d.u16())))}
		if d.bad || a.Path == "" || len(a.Path) > maxPath {
			return corrupt("bad lineage in map root")
		}
		r.Lineage = append(r.Lineage, a)
	}
	var err error
	blocks := (r.Size + BlockSize - 1) / BlockSize
	if r.Dirs, err = d.refs(dirs, int((blocks+DirBlocks-1)/DirBlocks)); err != nil {
		return err
	}
	if r.Segs, err = d.refs(segs, (int(r.NextSeg)+SegPageEntries-1)/SegPageEntries); err != nil {
		return err
	}
	if len(d.b) != 0 {
		return corrupt("%d bytes after the map root", len(d.b))
	}
	return nil
}

// reader takes fields off the front of a buffer and remembers when it ran short.
type reader struct {
	b   []byte
	bad bool
}

func (d *reader) take(n int) []byte {
	if n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	x := d.b[:n]
	d.b = d.b[n:]
	return x
}

func (d *reader) u16() uint16 {
	if x := d.take(2); x != nil {
		return le.Uint16(x)
	}
	return 0
}

func (d *reader) u32() uint32 {
	if x := d.take(4); x != nil {
		return le.Uint32(x)
	}
	return 0
}

func (d *reader) u64() uint64 {
	if x := d.take(8); x != nil {
		return le.Uint64(x)
	}
	return 0
}

// refs reads count (index, reference) pairs with ascending indexes below limit into a table of
// limit.
func (d *reader) refs(count uint32, limit int) ([]PageRef, error) {
	if uint64(count)*dirEntryLen > uint64(len(d.b)) {
		return nil, corrupt("map root is cut")
	}
	refs := make([]PageRef, limit)
	last := -1
	for range count {
		i := int(d.u32())
		r, err := getPageRef(d.take(pageRefLen))
		if err != nil {
			return nil, err
		}
		if i <= last || i >= limit {
			return nil, corrupt("bad index %d in map root", i)
		}
		refs[i], last = r, i
	}
	return refs, nil
}

// PutPagesHeader writes the header of a pages object with count pages into dst (PagesHeaderLen
// bytes).
func PutPagesHeader(dst []byte, nonce ID, count int) {
	clear(dst[:PagesHeaderLen])
	copy(dst, pagesMagic)
	le.PutUint16(dst[8:], Version)
	le.PutUint32(dst[12:], uint32(count))
	copy(dst[16:], nonce[:])
}
