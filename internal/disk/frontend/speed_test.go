//go:build qemu

package frontend_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

// TestSpeedInGuest measures 4 KiB direct reads, direct writes, and writes with an fsync, on the block device itself, by
// both front ends in turn over a device that is memory: what is measured is the front end and nothing else.
func TestSpeedInGuest(t *testing.T) {
	if !frontend.HasKernelNBD() {
		t.Fatal("it compares the front ends of a kernel that has both: run TestQemuGuest")
	}
	kinds := []frontend.Kind{frontend.FUSE, frontend.NBD}
	took := map[string]map[frontend.Kind][]time.Duration{"read": {}, "write": {}, "write+fsync": {}}
	for range 4 { // in turn, so that both see the same weather
		for _, kind := range kinds {
			t.Setenv(kindEnv, string(kind))
			f := attach(t, newFileDevice(t, t.TempDir()+"/disk", 64<<20), "speed")
			for what, byKind := range took {
				byKind[kind] = append(byKind[kind], timeAccesses(t, f.BlockDevice(), what)...)
			}
			closeClean(t, f)
		}
	}
	for _, what := range []string{"read", "write", "write+fsync"} {
		p50 := map[frontend.Kind]time.Duration{}
		for _, kind := range kinds {
			all := took[what][kind]
			slices.Sort(all)
			p50[kind] = all[len(all)/2]
		}
		fmt.Printf("RESULT 4k O_DIRECT %s in a guest, p50: kernel NBD %d µs, FUSE+loop %d µs, NBD/FUSE %.2f\n", what,
			p50[frontend.NBD].Microseconds(), p50[frontend.FUSE].Microseconds(), float64(p50[frontend.NBD])/float64(p50[frontend.FUSE]))
	}
}

func timeAccesses(t *testing.T, blockdev, what string) []time.Duration {
	t.Helper()
	fd, err := unix.Open(blockdev, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	block, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // aligned
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(block) }()
	var took []time.Duration
	for i := range 300 {
		off := int64(i*7919%16384) * 4096
		began := time.Now()
		if what == "read" {
			_, err = unix.Pread(fd, block, off)
		} else {
			_, err = unix.Pwrite(fd, block, off)
		}
		if err == nil && what == "write+fsync" {
			err = unix.Fsync(fd)
		}
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}
