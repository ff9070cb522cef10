package frontend_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkFsync4K overwrites 4 KiB and fsyncs, in a file on ext4 on a device over a file, and
// beside it in a plain file on this host: the difference is what the front end costs.
func BenchmarkFsync4K(b *testing.B) {
	b.Run("frontend", func(b *testing.B) {
		f := attach(b, newFileDevice(b, b.TempDir()+"/disk", testSize), "bench")
		mkfs(b, f.BlockDevice())
		dir := mount(b, f)
		fsyncs(b, filepath.Join(dir, "file"))
		unmount(b, dir)
		closeClean(b, f)
	})
	b.Run("plain", func(b *testing.B) { fsyncs(b, filepath.Join(b.TempDir(), "file")) })
}

func fsyncs(b *testing.B, name string) {
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
