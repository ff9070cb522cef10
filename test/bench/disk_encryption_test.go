//go:build bench

package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
)

// TestDiskEncryptionCost writes and reads the same noise on a disk in the clear and on an encrypted
// one, in turn, over a store in memory, so that nothing but the engine's own work is in the
// figures. It prints the ratio of speeds.
func TestDiskEncryptionCost(t *testing.T) {
	const size, rounds = 128 << 20, 7
	key, err := kek.New([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	times := map[string][]float64{}
	for range rounds {
		for _, x := range []struct {
			name string
			key  disk.KEK
		}{{"clear", nil}, {"encrypted", key}} {
			write, read := encryptionRound(t, noise, x.key)
			times[x.name+" write"] = append(times[x.name+" write"], write.Seconds())
			times[x.name+" read"] = append(times[x.name+" read"], read.Seconds())
		}
	}
	for _, what := range []string{"write", "read"} {
		clear, sealed := middle(times["clear "+what]), middle(times["encrypted "+what])
		t.Logf("RESULT disk-encryption %s: clear %.0f MiB/s, encrypted %.0f MiB/s, ratio %.2f",
			what, size/clear/(1<<20), size/sealed/(1<<20), clear/sealed)
	}
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// encryptionRound writes all of a new disk and flushes, and reads it by a reader that has nothing
// in memory.
func encryptionRound(t *testing.T, content []byte, key disk.KEK) (write, read time.Duration) {
	t.Helper()
	const chunk = 1 << 20
	ctx, store := t.Context(), memblob.New()
	if _, err := disk.Create(ctx, store, diskPath,
		disk.CreateOptions{Size: int64(len(content)), Key: key}); err != nil {
		t.Fatal(err)
	}
	d := attachDisk(t, store, nil, func(o *disk.AttachOptions) { o.Key = key })
	start := time.Now()
	for off := 0; off < len(content); off += chunk {
		if err := d.WriteAt(ctx, content[off:off+chunk], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	write = time.Since(start)
	closeDisk(t, d)
	r, err := disk.OpenReadOnly(ctx, store, diskPath, "", disk.ReadOnlyOptions{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, chunk)
	start = time.Now()
	for off := 0; off < len(content); off += chunk {
		if err := r.ReadAt(ctx, buf, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return write, time.Since(start)
}
