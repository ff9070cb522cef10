//go:build bench

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
)

// TestCompactionAmplification writes what a root disk sees: an installation, then files that are
// replaced, a journal that goes round, and blocks here and there, a flush after each few; twice,
// without and with background compaction. The data doesn't compress. Write amplification is all
// that went to the store beside what was written to the device; space amplification what the disk
// can still reach there beside what is mapped.
func TestCompactionAmplification(t *testing.T) {
	for _, on := range []bool{false, true} {
		ctx := t.Context()
		store := memblob.New()
		const path, size = "disks/root", 1 << 30
		if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: size}); err != nil {
			t.Fatal(err)
		}
		opts := disk.AttachOptions{Generation: 1, Holder: "bench"}
		if on {
			opts.CompactBytes = 32 << 20
		}
		d, err := disk.Attach(ctx, store, path, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Abandon)
		rootDiskWorkload(t, d)
		if err := d.Settle(ctx); err != nil {
			t.Fatal(err)
		}
		st := d.Stats()
		mapped, before := reachable(t, store, path)
		done, err := d.Compact(ctx, disk.CompactOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all := d.Stats()
		_, after := reachable(t, store, path)
		fmt.Printf(
			"RESULT compaction background=%v written_mib=%d write_amplification=%.2f (of it packed %.2f) space_amplification=%.2f"+
				" after_compact: copied_mib=%d write_amplification=%.2f space_amplification=%.2f\n",
			on, st.WriteBytes>>20, ratio(st.PutBytes, st.WriteBytes),
			ratio(st.PackedBytes, st.WriteBytes), float64(before)/float64(mapped),
			done.MovedBytes>>20, ratio(all.PutBytes, all.WriteBytes),
			float64(after)/float64(mapped))
		if err := d.Close(context.WithoutCancel(ctx)); err != nil {
			t.Fatal(err)
		}
	}
}

func ratio(a, b uint64) float64 { return float64(a) / float64(b) }

func reachable(t *testing.T, store blob.Store, path string) (mapped, stored int64) {
	t.Helper()
	r, err := fsck.Check(t.Context(), store, path, fsck.Options{})
	if err != nil || r.DamageCount > 0 {
		t.Fatal(err, r)
	}
	return r.MappedBytes, r.Own.Bytes - r.Garbage().Bytes
}

// rootDiskWorkload writes about 700 MiB to a disk of 1 GiB.
func rootDiskWorkload(t *testing.T, d *disk.Disk) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var seed [32]byte
	noise := rand.NewChaCha8(seed)
	buf := make([]byte, 4<<20)
	write := func(off, n int64) {
		if _, err := noise.Read(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(t.Context(), buf[:n], off); err != nil {
			t.Fatal(err)
		}
	}
	flush := func() {
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for off := int64(0); off < 300<<20; off += 4 << 20 { // the installation
		write(off, 4<<20)
	}
	flush()
	journal := int64(0)
	for range 3000 {
		for range 1 + rng.IntN(3) { // a file is replaced, or grows: most are few, hot ones
			at := int64(rng.ExpFloat64() * float64(40<<20))
			write(at%(600<<20)&^4095, 4096*(1+rng.Int64N(24)))
		}
		n := 4096 * (1 + rng.Int64N(6))
		write(900<<20+journal, n)
		journal = (journal + n) % (32 << 20)
		flush()
		if rng.IntN(50) == 0 { // something large goes
			if err := d.Trim(t.Context(), rng.Int64N(560<<20)&^4095, 4<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
}
