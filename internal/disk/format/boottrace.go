package format

import (
	"encoding/binary"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// MaxTraceRuns bounds a boot trace.
const MaxTraceRuns = 1 << 14

const (
	traceMagic = "SluiceBT"
	traceFixed = 16 // magic, version (4), number of runs (4)
)

// BlockRun is Count adjacent blocks of a disk from LBA on.
type BlockRun struct {
	LBA   uint64
	Count uint64
}

// EncodeTrace returns a boot trace: which blocks were read first after an attach, in that order. It
// is a hint and nothing else: it names blocks, not what they hold.
func EncodeTrace(runs []BlockRun) []byte {
	b := append(make([]byte, 0, traceFixed+4*len(runs)+4), traceMagic...)
	b = le.AppendUint32(b, Version)
	b = le.AppendUint32(b, uint32(len(runs))) //nolint:gosec // bounded by MaxTraceRuns
	last := int64(0)
	for _, r := range runs {
		b = binary.AppendVarint(b, int64(r.LBA)-last) //nolint:gosec // blocks are below 2^32
		b = binary.AppendUvarint(b, r.Count)
		last = int64(r.LBA + r.Count) //nolint:gosec // as above
	}
	return le.AppendUint32(b, CRC(b))
}

// DecodeTrace decodes and checks a boot trace.
func DecodeTrace(b []byte) ([]BlockRun, error) {
	if len(b) < traceFixed+4 || string(b[:8]) != traceMagic {
		return nil, corrupt("boot trace: bad magic or length %d", len(b))
	}
	if v := le.Uint32(b[8:]); v != Version {
		return nil, unsupported("boot trace of version %d", v)
	}
	body, sum := b[:len(b)-4], le.Uint32(b[len(b)-4:])
	if CRC(body) != sum {
		return nil, corrupt("boot trace: bad checksum")
	}
	n := le.Uint32(b[12:])
	if n > MaxTraceRuns {
		return nil, corrupt("boot trace of %d runs", n)
	}
	return decodeRuns(body[traceFixed:], int(n))
}

func decodeRuns(b []byte, n int) ([]BlockRun, error) {
	runs := make([]BlockRun, 0, min(n, len(b)/2))
	at := int64(0)
	for range n {
		delta, k := binary.Varint(b)
		if k <= 0 {
			return nil, errs.New(errs.Corrupt, "boot trace ends within a run")
		}
		count, l := binary.Uvarint(b[k:])
		if l <= 0 {
			return nil, errs.New(errs.Corrupt, "boot trace ends within a run")
		}
		b = b[k+l:]
		if delta < -MaxBlocks || delta > MaxBlocks || count == 0 || count > MaxBlocks {
			return nil, corrupt("boot trace: run of %d blocks, %d on", count, delta)
		}
		at += delta
		if at < 0 || at+int64(count) > MaxBlocks { //nolint:gosec // count is at most 2^32
			return nil, corrupt("boot trace: run outside of any disk")
		}
		runs = append(runs, BlockRun{LBA: uint64(at), Count: count})
		at += int64(count) //nolint:gosec // as above
	}
	if len(b) != 0 {
		return nil, corrupt("boot trace: %d bytes after the last run", len(b))
	}
	return runs, nil
}
