package format

import (
	"bytes"
	"math"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

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

// A frame is stored raw, or compressed in one of two ways.
const (
	FrameZstd   uint16 = 1 << 0 // a zstd frame (RFC 8878)
	FrameSnappy uint16 = 1 << 1 // a block in Snappy's format, without framing
	frameFlags         = FrameZstd | FrameSnappy
)

const (
	// LogFixedLen is the length of the part of a header that identifies the object, in bytes.
	LogFixedLen = 96
	runLen      = 16
	frameLen    = 16
	logMagic    = "SLUICLOG"
	timeBits    = 48 // of the time written, until the year 10889
	timeMask    = 1<<timeBits - 1
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

// LogHeader describes a log object or a packed segment. Zero runs apply before data runs: within
// one object a block that is in both holds the data.
type LogHeader struct {
	Flags   uint16
	Kind    uint8
	Disk    ID // the disk's uid
	Nonce   ID // fresh per object; tells one's own earlier success from another's object
	Epoch   uint64
	Seq     uint64
	Created int64 // Unix milliseconds; 48 bits of it are kept
	// Behind is one more than the number of objects right before this one that the writer had not
	// been told are stored when it made this one. All earlier ones of the epoch were acknowledged
	// to it. 0: it doesn't tell.
	Behind uint16
	Blocks uint32
	Body   uint32 // bytes of frames after the header
	Runs   []Run
	Frames []Frame

	Cipher uint8  // CipherNone, or what encrypts runs and frames
	KeyID  uint32 // of the disk's data keys; 0 without a cipher

	sealed *sealedRuns // of an encrypted header that was decoded and not opened yet
}

// sealedRuns is the part of a header that Keys.Open decrypts.
type sealedRuns struct {
	count  int
	stored []byte // runs and tag
	aad    []byte
}

// IsFence reports whether the object ends its epoch's log.
func (h *LogHeader) IsFence() bool { return h.Flags&FlagFence != 0 }

// Acknowledged returns the sequence number up to which the store had acknowledged all objects of
// the epoch when this one was made, and 0 if the object doesn't tell.
func (h *LogHeader) Acknowledged() uint64 {
	if h.Behind == 0 || uint64(h.Behind) > h.Seq {
		return 0
	}
	return h.Seq - uint64(h.Behind)
}

// SetAcknowledged notes up to which sequence number the store has acknowledged all objects of the
// epoch.
func (h *LogHeader) SetAcknowledged(seq uint64) {
	h.Behind = 0
	if n := h.Seq - seq; seq < h.Seq && n <= math.MaxUint16 {
		h.Behind = uint16(n)
	}
}

// Len returns the length of the encoded header in bytes.
func (h *LogHeader) Len() int {
	runs := len(h.Runs)
	if h.sealed != nil {
		runs = h.sealed.count
	}
	n := LogHeaderLen(runs, len(h.Frames))
	if h.Cipher != CipherNone {
		n += tagLen
	}
	return n
}

// LogHeaderLen returns the encoded length of a header in the clear with so many runs and frames, in
// bytes.
func LogHeaderLen(runs, frames int) int { return LogFixedLen + runs*runLen + frames*frameLen + 4 }

// Seal encodes the header into dst, which must be h.Len() bytes, with its runs encrypted under the
// object's key and all of it bound to that. A nil key leaves it in the clear; h.Cipher must say the
// same.
func (h *LogHeader) Seal(dst []byte, key *ObjectKey) {
	h.put(dst)
	if key == nil {
		return
	}
	runs := LogFixedLen + len(h.Runs)*runLen
	table := runs + len(h.Frames)*frameLen
	sealed := key.aead.Seal(nil, key.nonce(headerFrame), dst[LogFixedLen:runs],
		headerAAD(key, dst[:LogFixedLen], dst[runs:table]))
	copy(dst[LogFixedLen:runs], sealed)
	copy(dst[table:], sealed[runs-LogFixedLen:])
	le.PutUint32(dst[len(dst)-4:], CRC(dst[:len(dst)-4]))
}

func headerAAD(key *ObjectKey, fixed, table []byte) []byte {
	return append(append(key.aad(headerFrame, 0, 0), fixed...), table...)
}

// open decrypts the runs.
func (h *LogHeader) open(key *ObjectKey) error {
	if h.sealed == nil {
		return nil
	}
	runs, err := key.aead.Open(nil, key.nonce(headerFrame), h.sealed.stored,
		append(key.aad(headerFrame, 0, 0), h.sealed.aad...))
	if err != nil {
		return errs.Wrap(errs.Corrupt, err, "log header was changed, or is under another key")
	}
	h.decodeRuns(runs, h.sealed.count)
	h.sealed = nil
	return h.check()
}

func (h *LogHeader) decodeRuns(b []byte, count int) {
	h.Runs = make([]Run, count)
	for i := range h.Runs {
		w := le.Uint64(b[i*runLen+8:])
		h.Runs[i] = Run{LBA: le.Uint64(b[i*runLen:]), Count: w & (1<<56 - 1), Kind: uint8(w >> 56)}
	}
}

// put encodes the header into dst, which must be h.Len() bytes, in the clear.
func (h *LogHeader) put(dst []byte) {
	clear(dst[:LogFixedLen])
	copy(dst, logMagic)
	le.PutUint16(dst[8:], Version)
	le.PutUint16(dst[10:], h.Flags)
	le.PutUint32(dst[12:], uint32(h.Len()))
	le.PutUint64(dst[16:], h.Epoch)
	le.PutUint64(dst[24:], h.Seq)
	copy(dst[32:48], h.Disk[:])
	copy(dst[48:64], h.Nonce[:])
	le.PutUint64(dst[64:], uint64(h.Created)&timeMask|uint64(h.Behind)<<timeBits)
	le.PutUint32(dst[72:], h.Blocks)
	le.PutUint32(dst[76:], uint32(len(h.Runs)))
	le.PutUint32(dst[80:], uint32(len(h.Frames)))
	le.PutUint32(dst[84:], h.Body)
	dst[88] = h.Kind
	dst[89] = h.Cipher // 90..91: reserved
	le.PutUint32(dst[92:], h.KeyID)
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
	h := LogHeader{Flags: FlagFence, Kind: KindLog, Disk: disk, Nonce: nonce, Epoch: epoch,
		Seq: seq, Created: created}
	b := make([]byte, h.Len())
	h.put(b)
	return b
}

// LogHeaderLenOf returns the full header length that the fixed part of a header announces. It
// checks the magic and the version, not the checksum.
func LogHeaderLenOf(b []byte) (int, error) {
	if len(b) < LogFixedLen+4 || !bytes.Equal(b[:8], []byte(logMagic)) {
		return 0, corrupt("not a log object")
	}
	if v := le.Uint16(b[8:]); v != Version {
		return 0, unsupported("log object of format version %d", v)
	}
	runs, frames := uint64(le.Uint32(b[76:])), uint64(le.Uint32(b[80:]))
	n := uint64(le.Uint32(b[12:]))
	want := LogFixedLen + runs*runLen + frames*frameLen + 4
	if b[89] != CipherNone {
		want += tagLen
	}
	if n != want {
		return 0, corrupt("log header of %d bytes with %d runs and %d frames", n, runs, frames)
	}
	return int(n), nil
}

// SameLogObject reports whether two encoded objects are the same write: same place and nonce.
func SameLogObject(a, b []byte) bool {
	return len(a) >= LogFixedLen && len(b) >= LogFixedLen &&
		bytes.Equal(a[:LogFixedLen], b[:LogFixedLen])
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
	if b[89] > CipherAES256GCM || (b[89] == CipherNone) != (le.Uint32(b[92:]) == 0) ||
		le.Uint16(b[90:]) != 0 {
		return nil, unsupported("log object with cipher %d and key %d", b[89], le.Uint32(b[92:]))
	}
	h := &LogHeader{
		Flags: le.Uint16(b[10:]), Epoch: le.Uint64(b[16:]), Seq: le.Uint64(b[24:]),
		Created: int64(le.Uint64(b[64:]) & timeMask), Behind: le.Uint16(b[70:]),
		Blocks: le.Uint32(b[72:]), Body: le.Uint32(b[84:]), Kind: b[88],
		Cipher: b[89], KeyID: le.Uint32(b[92:]), Frames: make([]Frame, le.Uint32(b[80:])),
	}
	copy(h.Disk[:], b[32:])
	copy(h.Nonce[:], b[48:])
	if h.Flags&^logFlags != 0 {
		return nil, unsupported("log object with flags %#x", h.Flags)
	}
	count := int(le.Uint32(b[76:]))
	runs := LogFixedLen + count*runLen
	p := runs
	for i := range h.Frames {
		h.Frames[i] = Frame{Offset: le.Uint32(b[p:]), Length: le.Uint32(b[p+4:]),
			CRC:   le.Uint32(b[p+8:]),
			Flags: le.Uint16(b[p+12:]), Blocks: le.Uint16(b[p+14:])}
		p += frameLen
	}
	if h.Cipher == CipherNone {
		h.decodeRuns(b[LogFixedLen:runs], count)
		return h, h.check()
	}
	h.sealed = &sealedRuns{count: count,
		stored: append(bytes.Clone(b[LogFixedLen:runs]), b[p:p+tagLen]...),
		aad:    append(bytes.Clone(b[:LogFixedLen]), b[runs:p]...)}
	return h, h.checkFrames()
}

// check verifies that runs and frames agree with the counts and with each other.
func (h *LogHeader) check() error {
	var data uint64
	for _, r := range h.Runs {
		if r.Kind > RunZero || r.Count == 0 || r.LBA >= MaxBlocks || r.Count > MaxBlocks-r.LBA {
			return corrupt("bad run %+v", r)
		}
		if r.Kind == RunData {
			data += r.Count
		}
	}
	if data != uint64(h.Blocks) {
		return corrupt("runs hold %d blocks, header says %d", data, h.Blocks)
	}
	return h.checkFrames()
}

// checkFrames is check for what can be read without a key.
func (h *LogHeader) checkFrames() error {
	if h.Kind != KindLog && h.Kind != KindSeg {
		return unsupported("log object of kind %d", h.Kind)
	}
	most := uint64(FrameSize)
	if h.Cipher != CipherNone {
		most += tagLen
	}
	var blocks, end uint64
	for i, f := range h.Frames {
		full := f.Blocks == FrameBlocks ||
			(i == len(h.Frames)-1 && f.Blocks > 0 && f.Blocks < FrameBlocks)
		if !full || f.Flags == frameFlags || f.Flags&^frameFlags != 0 || uint64(f.Offset) != end ||
			f.Length == 0 ||
			uint64(f.Length) > most {
			return corrupt("bad frame %d: %+v", i, f)
		}
		blocks += uint64(f.Blocks)
		end += uint64(f.Length)
	}
	if blocks != uint64(h.Blocks) || blocks > MaxSegBlocks || end != uint64(h.Body) {
		return corrupt("frames hold %d blocks in %d bytes, header says %d in %d", blocks, end,
			h.Blocks, h.Body)
	}
	if h.IsFence() && (len(h.Runs) > 0 || h.Body > 0 || h.Cipher != CipherNone) {
		return corrupt("a fence holds data")
	}
	return nil
}

// CheckFrame checks a stored frame's length and checksum, for which no key is needed.
func CheckFrame(stored []byte, f Frame) error {
	if len(stored) != int(f.Length) {
		return corrupt("frame is %d bytes, want %d", len(stored), f.Length)
	}
	if CRC(stored) != f.CRC {
		return corrupt("frame checksum mismatch")
	}
	return nil
}

// DecodeFrame checks a stored frame, number index of its object, against its entry and appends its
// content to dst. The key is nil for an object in the clear. stored stays as it is.
func (c *Codec) DecodeFrame(dst, stored []byte, f Frame, key *ObjectKey,
	index int) ([]byte, error) {
	if err := CheckFrame(stored, f); err != nil {
		return nil, err
	}
	want := int(f.Blocks) * BlockSize
	if key == nil {
		return c.unpackFrame(dst, stored, f.Flags, want)
	}
	scratch := c.scratch()
	defer c.give(scratch)
	plain, err := key.aead.Open((*scratch)[:0], key.nonce(uint32(index)), stored,
		key.aad(uint32(index), f.Flags, f.Blocks))
	if err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "frame was changed, or is under another key")
	}
	*scratch = plain
	return c.unpackFrame(dst, plain, f.Flags, want)
}
