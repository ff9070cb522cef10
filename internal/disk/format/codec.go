package format

import (
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Codec compresses and decompresses frames and pages. One serves a whole disk; all methods are safe
// for concurrent use and use at most as many encoders and decoders at a time as there are
// processors.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder

	plain sync.Pool // *[]byte; decrypted frames on their way to be decompressed
}

func (c *Codec) scratch() *[]byte {
	if b, ok := c.plain.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, FrameSize)
	return &b
}

func (c *Codec) give(b *[]byte) { c.plain.Put(b) }

// NewCodec returns a codec at zstd's fastest level. It holds memory only and needs no closing.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a zstd encoder")
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxRootContents))
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a zstd decoder")
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// pack appends raw to dst, compressed if that saves at least a tenth, and reports whether it was.
func (c *Codec) pack(dst, raw []byte) ([]byte, bool) {
	return worthwhile(c.enc.EncodeAll(raw, dst), len(dst), raw)
}

// packFast is pack with Snappy, at several times the speed, for what is about a quarter larger.
func (c *Codec) packFast(dst, raw []byte) ([]byte, bool) {
	start := len(dst)
	dst = slices.Grow(dst, s2.MaxEncodedLen(len(raw)))
	packed := s2.EncodeSnappy(dst[start:start+s2.MaxEncodedLen(len(raw))], raw)
	return worthwhile(dst[:start+len(packed)], start, raw)
}

// worthwhile returns packed, whose part from start on is raw compressed, or with raw in that place.
func worthwhile(packed []byte, start int, raw []byte) ([]byte, bool) {
	if len(packed)-start <= len(raw)-len(raw)/10 {
		return packed, true
	}
	return append(packed[:start], raw...), false
}

// unpackFrame appends the content of a frame with flags to dst, which must be want bytes.
func (c *Codec) unpackFrame(dst, stored []byte, flags uint16, want int) ([]byte, error) {
	switch flags {
	case 0, FrameZstd:
		return c.unpack(dst, stored, flags == FrameZstd, want, want)
	case FrameSnappy:
	default:
		return nil, corrupt("frame flags %#x", flags)
	}
	if n, err := s2.DecodedLen(stored); err != nil || n != want {
		return nil, corrupt("content is %d bytes, want %d", n, want)
	}
	start := len(dst)
	dst = slices.Grow(dst, want)[:start+want]
	if _, err := s2.Decode(dst[start:], stored); err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "decompress")
	}
	return dst, nil
}

// unpack appends the content of stored to dst and checks that it is want bytes; want < 0 allows any
// length up to limit.
func (c *Codec) unpack(dst, stored []byte, compressed bool, want, limit int) ([]byte, error) {
	start := len(dst)
	if !compressed {
		dst = append(dst, stored...)
	} else {
		var err error
		if dst, err = c.dec.DecodeAll(stored, dst); err != nil {
			return nil, errs.Wrap(errs.Corrupt, err, "decompress")
		}
	}
	n := len(dst) - start
	if (want >= 0 && n != want) || n > limit {
		return nil, corrupt("content is %d bytes, want %d", n, want)
	}
	return dst, nil
}
