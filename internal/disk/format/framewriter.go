package format

// FrameOverhead is how many bytes a FrameWriter needs room for beside the content of a frame, at
// most: what a failed attempt to compress adds, or the tag.
const FrameOverhead = 64

// maxUntried is how many frames are stored raw after a try that failed, at most: 1 MiB.
const maxUntried = 16

// FrameWriter stores the frames of one object, in order. In log objects, for which somebody waits,
// it compresses with Snappy; in packed segments, which are made in the background and stay, with
// zstd.
//
// A try to compress what hardly compresses can cost thirty times what it costs to store it raw, and
// what was written together is mostly of one kind: after each try in a row that saved too little,
// twice as many frames are stored raw without one, up to maxUntried.
//
// It isn't safe for concurrent use.
type FrameWriter struct {
	codec *Codec
	kind  uint8
	base  int
	key   *ObjectKey

	next    int    // frame
	failed  int    // tries in a row
	untried int    // frames still to store without one
	whole   []byte // room to put a frame's pieces together, for a compressor
}

// FrameWriter returns the writer of the frames of an object of a kind (KindLog or KindSeg), which
// begin at base. The key is nil on a disk in the clear.
func (c *Codec) FrameWriter(kind uint8, base int, key *ObjectKey) *FrameWriter {
	return &FrameWriter{codec: c, kind: kind, base: base, key: key}
}

// Append appends the stored form of content (pieces that together are a multiple of BlockSize, at
// most FrameSize) to body and returns its entry, with the offset counted from the base. A frame is
// compressed first and then encrypted.
func (w *FrameWriter) Append(body []byte, content ...[]byte) ([]byte, Frame) {
	start, length := len(body), 0
	for _, piece := range content {
		length += len(piece)
	}
	body, flags := w.pack(body, content)
	f := Frame{Offset: uint32(start - w.base), Blocks: uint16(length / BlockSize), Flags: flags}
	if w.key != nil {
		i := uint32(w.next)
		body = w.key.aead.Seal(body[:start], w.key.nonce(i), body[start:],
			w.key.aad(i, f.Flags, f.Blocks))
	}
	w.next++
	f.Length, f.CRC = uint32(len(body)-start), CRC(body[start:])
	return body, f
}

// pack appends content to body, compressed or not, and returns the flags that say so. What is
// stored as it is, is copied once.
func (w *FrameWriter) pack(body []byte, content [][]byte) ([]byte, uint16) {
	if w.untried > 0 {
		w.untried--
		return appendAll(body, content), 0
	}
	pack, flag := w.codec.packFast, FrameSnappy
	if w.kind == KindSeg {
		pack, flag = w.codec.pack, FrameZstd
	}
	body, packed := pack(body, w.together(content))
	if packed {
		w.failed = 0
		return body, flag
	}
	w.untried = min(1<<min(w.failed, 8), maxUntried)
	w.failed++
	return body, 0
}

// together returns content in one piece, which is good until the next call.
func (w *FrameWriter) together(content [][]byte) []byte {
	if len(content) == 1 {
		return content[0]
	}
	if w.whole == nil {
		w.whole = make([]byte, 0, FrameSize)
	}
	w.whole = appendAll(w.whole[:0], content)
	return w.whole
}

func appendAll(dst []byte, pieces [][]byte) []byte {
	for _, p := range pieces {
		dst = append(dst, p...)
	}
	return dst
}
