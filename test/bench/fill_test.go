//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	fillDisk   = 11 << 30
	fillMiB    = 10 << 10 // what is written
	fillMemory = 256      // MiB; the peer has 16 times as much
	fillTime   = 30 * time.Minute
)

// TestFillADisk has a small machine and a large one write 10 GiB to their disks, one after the
// other, with an fsync at the end. The small one's page cache holds a fortieth of that: it writes
// as fast as its disk takes it, or waits for itself.
func TestFillADisk(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1, NoImage: true})
	if _, err := f.CreateImage(t.Context(), fleettest.Image, fillDisk,
		bytes.NewReader(fleettest.ImageTar(t))); err != nil {
		t.Fatal(err)
	}
	rate := func(memory int64) float64 {
		m := f.Create(fmt.Sprintf("fill%d", memory), "green", "w1",
			api.MachineConfig{Image: fleettest.Image, CPUs: 2, MemoryMiB: memory})
		ctx, cancel := context.WithTimeout(t.Context(), fillTime)
		defer cancel()
		start := time.Now()
		if _, err := f.TryRun(ctx, m.ID, "dd", "if=/dev/zero", "of=/data/fill", "bs=1M",
			fmt.Sprint("count=", fillMiB), "conv=fsync"); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		if err := f.DestroyMachine(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		return fillMiB / took.Seconds()
	}
	rate(2 * fillMemory) // once for nothing
	small, large := rate(fillMemory), rate(16*fillMemory)
	t.Logf(
		"10 GiB by a machine of %d MiB: %.0f MiB/s; of %d MiB: %.0f MiB/s; ratio %.2f (the bar is 0.5)",
		fillMemory, small, 16*fillMemory, large, small/large)
}
