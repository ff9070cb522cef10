package format

import (
	"slices"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestTraceRoundTrip(t *testing.T) {
	runs := []BlockRun{{LBA: 500, Count: 3}, {LBA: 0, Count: 1}, {LBA: MaxBlocks - 8, Count: 8},
		{LBA: 501, Count: 1}}
	got, err := DecodeTrace(EncodeTrace(runs))
	if err != nil || !slices.Equal(got, runs) {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := DecodeTrace(EncodeTrace(nil)); err != nil || len(got) != 0 {
		t.Fatalf("empty: %v, %v", got, err)
	}
}

func TestTraceDamageIsFound(t *testing.T) {
	good := EncodeTrace([]BlockRun{{LBA: 7, Count: 9}, {LBA: 1 << 20, Count: 1}})
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		if _, err := DecodeTrace(bad); err == nil {
			t.Fatalf("flipped bit in byte %d unnoticed", i)
		}
	}
	for n := range good {
		if _, err := DecodeTrace(good[:n]); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzTrace(f *testing.F) {
	f.Add(EncodeTrace([]BlockRun{{LBA: 500, Count: 3}, {LBA: 0, Count: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 { // let the fuzzer past the checksum
			le.PutUint32(b[len(b)-4:], CRC(b[:len(b)-4]))
		}
		runs, err := DecodeTrace(b)
		if err != nil {
			return
		}
		for _, r := range runs {
			if r.Count == 0 || r.LBA+r.Count > MaxBlocks {
				t.Fatalf("run %+v", r)
			}
		}
	})
}
