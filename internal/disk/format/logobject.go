package format

import "bytes"

// Flags of a log object.
const (
	FlagFence uint16 = 1 << 0 // ends its epoch's log for good; holds no data
	logFlags         = FlagFence
)

// Kinds of segment: where the object of a segment-table entry is kept.
const (
	KindFree uint8 = 0 // no segment
	KindLog  uint8 = 1 // log/<epoch>/<seq>
	KindSeg  uint8 = 2 // seg/<epoch>-<seq>, written by compaction
)

// RunData and RunZero are the kinds of a run: blocks with content, or trimmed and zeroed ones.
const (
	RunData uint8 = 0
	RunZero uint8 = 1
)

// FrameZstd says that a frame is compressed.
const FrameZstd uint16 = 1 << 0

const (
	// LogFixedLen is the length of the part of a header that identifies the object, in bytes.
	LogFixedLen = 96
	runLen      = 16
	frameLen    = 16
	logMagic    = "SLUICLOG"
)

// Run is Count adjacent blocks from LBA (in blocks). Data runs take the segment's blocks in order.
type Run struct {
	LBA   uint64
	Count uint64
	Kind  uint8
}

// Frame is one independently readable piece of a segment.
type Frame struct {
	Offset uint32 // bytes from the end of the header
	Length uint32 // stored bytes
	CRC    uint32 // of the stored bytes
	Flags  uint16
	Blocks uint16 // FrameBlocks in all but the last
}

// LogHeader describes a log object or a packed segment. Zero runs apply before data runs: within one
// object a block that is in both holds the data.
type LogHeader struct {
	Flags   uint16
	Kind    uint8
	Disk    ID // the disk's uid
	Nonce   ID // fresh per object; tells one's own earlier success from another's object
	Epoch   uint64
	Seq     uint64
	Created int64 // Unix milliseconds
	Blocks  uint32
	Body    uint32 // bytes of frames after the header
	Runs    []Run
	Frames  []Frame
}

// IsFence reports whether the object ends its epoch's log.
func (h *LogHeader) IsFence() bool { return h.Flags&FlagFence != 0 }

// Len returns the length of the encoded header in bytes.
func (h *LogHeader) Len() int { return LogHeaderLen(len(h.Runs), len(h.Frames)) }

// LogHeaderLen returns the encoded length of a header with so many runs and frames, in bytes.
func LogHeaderLen(runs, frames int) int { return LogFixedLen + runs*runLen + frames*frameLen + 4 }

// Put encodes the header into dst, which must be h.Len() bytes.
func (h *LogHeader) Put(dst []byte) {
	clear(dst[:LogFixedLen])
	copy(dst, logMagic)
	le.PutUint16(dst[8:], Version)
	le.PutUint16(dst[10:], h.Flags)
	le.PutUint32(dst[12:], uint32(h.Len()))
	le.PutUint64(dst[16:], h.Epoch)
	le.PutUint64(dst[24:], h.Seq)
	copy(dst[32:48], h.Disk[:])
	copy(dst[48:64], h.Nonce[:])
	le.PutUint64(dst[64:], uint64(h.Created))
	le.PutUint32(dst[72:], h.Blocks)
	le.PutUint32(dst[76:], uint32(len(h.Runs)))
	le.PutUint32(dst[80:], uint32(len(h.Frames)))
	le.PutUint32(dst[84:], h.Body)
	dst[88] = h.Kind
	// 89: cipher (0 none), 90..91: reserved, 92..95: key id; all zero in version 1 without encryption.
	p := LogFixedLen
	for _, r := range h.Runs {
		le.PutUint64(dst[p:], r.LBA)
		le.PutUint64(dst[p+8:], r.Count|uint64(r.Kind)<<56)
		p += runLen
	}
	for _, f := range h.Frames {
		le.PutUint32(dst[p:], f.Offset)
		le.PutUint32(dst[p+4:], f.Length)
		le.PutUint32(dst[p+8:], f.CRC)
		le.PutUint16(dst[p+12:], f.Flags)
		le.PutUint16(dst[p+14:], f.Blocks)
		p += frameLen
	}
	le.PutUint32(dst[p:], CRC(dst[:p]))
}

// EncodeFence returns a fence: the object that ends an epoch's log.
func EncodeFence(disk, nonce ID, epoch, seq uint64, created int64) []byte {
	h := LogHeader{Flags: FlagFence, Kind: KindLog, Disk: disk, Nonce: nonce, Epoch: epoch, Seq: seq, Created: created}
	b := make([]byte, h.Len())
	h.Put(b)
	return b
}

// LogHeaderLenOf returns the full header length that the fixed part of a header announces. It checks the
// magic and the version, not the checksum.
func LogHeaderLenOf(b []byte) (int, error) {
	if len(b) < LogFixedLen+4 || !bytes.Equal(b[:8], []byte(logMagic)) {
		return 0, corrupt("not a log object")
	}
	if v := le.Uint16(b[8:]); v != Version {
		return 0, unsupported("log object of format version %d", v)
	}
	runs, frames := uint64(le.Uint32(b[76:])), uint64(le.Uint32(b[80:]))
	n := uint64(le.Uint32(b[12:]))
	if n != LogFixedLen+runs*runLen+frames*frameLen+4 {
		return 0, corrupt("log header of %d bytes with %d runs and %d frames", n, runs, frames)
	}
	return int(n), nil
}

// SameLogObject reports whether two encoded objects are the same write: same place and nonce.
func SameLogObject(a, b []byte) bool {
	return len(a) >= LogFixedLen && len(b) >= LogFixedLen && bytes.Equal(a[:LogFixedLen], b[:LogFixedLen])
}

// DecodeLogHeader decodes and checks a header. b may be longer than the header.
func DecodeLogHeader(b []byte) (*LogHeader, error) {
	n, err := LogHeaderLenOf(b)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, corrupt("log header cut at %d of %d bytes", len(b), n)
	}
	b = b[:n]
	if CRC(b[:n-4]) != le.Uint32(b[n-4:]) {
		return nil, corrupt("log header checksum mismatch")
	}
	if b[89] != 0 || le.Uint32(b[92:]) != 0 {
		return nil, unsupported("log object is encrypted (cipher %d)", b[89])
	}
	h := &LogHeader{
		Flags: le.Uint16(b[10:]), Epoch: le.Uint64(b[16:]), Seq: le.Uint64(b[24:]),
		Created: int64(le.Uint64(b[64:])), Blocks: le.Uint32(b[72:]), Body: le.Uint32(b[84:]), Kind: b[88],
		Runs: make([]Run, le.Uint32(b[76:])), Frames: make([]Frame, le.Uint32(b[80:])),
	}
	copy(h.Disk[:], b[32:])
	copy(h.Nonce[:], b[48:])
	if h.Flags&^logFlags != 0 {
		return nil, unsupported("log object with flags %#x", h.Flags)
	}
	p := LogFixedLen
	for i := range h.Runs {
		w := le.Uint64(b[p+8:])
		h.Runs[i] = Run{LBA: le.Uint64(b[p:]), Count: w & (1<<56 - 1), Kind: uint8(w >> 56)}
		p += runLen
	}
	for i := range h.Frames {
		h.Frames[i] = Frame{Offset: le.Uint32(b[p:]), Length: le.Uint32(b[p+4:]), CRC: le.Uint32(b[p+8:]),
			Flags: le.Uint16(b[p+12:]), Blocks: le.Uint16(b[p+14:])}
		p += frameLen
	}
	return h, h.check()
}

// check verifies that runs and frames agree with the counts and with each other.
func (h *LogHeader) check() error {
	if h.Kind != KindLog && h.Kind != KindSeg {
		return unsupported("log object of kind %d", h.Kind)
	}
	var data uint64
	for _, r := range h.Runs {
		if r.Kind > RunZero || r.Count == 0 || r.LBA >= MaxBlocks || r.Count > MaxBlocks-r.LBA {
			return corrupt("bad run %+v", r)
		}
		if r.Kind == RunData {
			data += r.Count
		}
	}
	if data != uint64(h.Blocks) || data > MaxSegBlocks {
		return corrupt("runs hold %d blocks, header says %d", data, h.Blocks)
	}
	var blocks, end uint64
	for i, f := range h.Frames {
		full := f.Blocks == FrameBlocks || (i == len(h.Frames)-1 && f.Blocks > 0 && f.Blocks < FrameBlocks)
		if !full || f.Flags&^FrameZstd != 0 || uint64(f.Offset) != end || f.Length == 0 ||
			uint64(f.Length) > FrameSize {
			return corrupt("bad frame %d: %+v", i, f)
		}
		blocks += uint64(f.Blocks)
		end += uint64(f.Length)
	}
	if blocks != data || end != uint64(h.Body) {
		return corrupt("frames hold %d blocks in %d bytes, header says %d in %d", blocks, end, data, h.Body)
	}
	if h.IsFence() && (len(h.Runs) > 0 || h.Body > 0) {
		return corrupt("a fence holds data")
	}
	return nil
}

// AppendFrame appends the stored form of content (a multiple of BlockSize, at most FrameSize) to body and
// returns its entry, with the offset counted from base.
func (c *Codec) AppendFrame(body []byte, base int, content []byte) ([]byte, Frame) {
	start := len(body)
	body, packed := c.pack(body, content)
	f := Frame{Offset: uint32(start - base), Length: uint32(len(body) - start), CRC: CRC(body[start:]),
		Blocks: uint16(len(content) / BlockSize)}
	if packed {
		f.Flags = FrameZstd
	}
	return body, f
}

// DecodeFrame checks a stored frame against its entry and appends its content to dst.
func (c *Codec) DecodeFrame(dst, stored []byte, f Frame) ([]byte, error) {
	if len(stored) != int(f.Length) {
		return nil, corrupt("frame is %d bytes, want %d", len(stored), f.Length)
	}
	if CRC(stored) != f.CRC {
		return nil, corrupt("frame checksum mismatch")
	}
	want := int(f.Blocks) * BlockSize
	return c.unpack(dst, stored, f.Flags&FrameZstd != 0, want, want)
}
