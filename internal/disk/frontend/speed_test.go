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

// jobs are what TestSpeedInGuest measures: direct accesses to the block device, one at a time.
var jobs = []struct {
	name   string
	size   int
	rounds int
	write  bool
	sync   bool
}{
	{name: "4k read", size: 4 << 10, rounds: 300},
	{name: "4k write", size: 4 << 10, rounds: 300, write: true},
	{name: "4k write and fsync", size: 4 << 10, rounds: 300, write: true, sync: true},
	{name: "1 MiB read", size: 1 << 20, rounds: 32},
	{name: "1 MiB write", size: 1 << 20, rounds: 32, write: true},
}

// TestSpeedInGuest measures accesses to the block device itself, by both front ends in turn over a
// device that is memory: what is measured is the front end and nothing else.
func TestSpeedInGuest(t *testing.T) {
	if !frontend.HasKernelNBD() {
		t.Fatal("it compares the front ends of a kernel that has both: run TestQemuGuest")
	}
	kinds := []frontend.Kind{frontend.FUSE, frontend.NBD}
	took := make([]map[frontend.Kind][]time.Duration, len(jobs))
	for range 4 { // in turn, so that both see the same weather
		for _, kind := range kinds {
			t.Setenv(kindEnv, string(kind))
			f := attach(t, newFileDevice(t, t.TempDir()+"/disk", 64<<20), "speed")
			for i := range jobs {
				if took[i] == nil {
					took[i] = map[frontend.Kind][]time.Duration{}
				}
				took[i][kind] = append(took[i][kind], timeAccesses(t, f.BlockDevice(), i)...)
			}
			closeClean(t, f)
		}
	}
	for i, job := range jobs {
		p50 := map[frontend.Kind]time.Duration{}
		for _, kind := range kinds {
			slices.Sort(took[i][kind])
			p50[kind] = took[i][kind][len(took[i][kind])/2]
		}
		fmt.Printf(
			"RESULT O_DIRECT %s in a guest, p50: kernel NBD %d µs, FUSE+loop %d µs, NBD/FUSE %.2f\n", job.name,
			p50[frontend.NBD].Microseconds(), p50[frontend.FUSE].Microseconds(),
			float64(p50[frontend.NBD])/float64(p50[frontend.FUSE]))
	}
}

func timeAccesses(t *testing.T, blockdev string, number int) []time.Duration {
	t.Helper()
	job := jobs[number]
	fd, err := unix.Open(blockdev, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// aligned
	block, err := unix.Mmap(-1, 0, job.size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(block) }()
	var took []time.Duration
	for i := range job.rounds {
		off := int64(i * 7919 * job.size % (64 << 20))
		began := time.Now()
		if job.write {
			_, err = unix.Pwrite(fd, block, off)
		} else {
			_, err = unix.Pread(fd, block, off)
		}
		if err == nil && job.sync {
			err = unix.Fsync(fd)
		}
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}
