package format

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Codec compresses and decompresses frames and pages. One serves a whole disk; all methods are safe for
// concurrent use and use at most as many encoders and decoders at a time as there are processors.
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
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
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
	start := len(dst)
	dst = c.enc.EncodeAll(raw, dst)
	if len(dst)-start <= len(raw)-len(raw)/10 {
		return dst, true
	}
	return append(dst[:start], raw...), false
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
