package frontend_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const endSize = 512 << 20

// TestGrowUnderWriters grows a device and the ext4 on it several times, to even and to odd sizes,
// while files are written. Where this process may not resize a mounted ext4, that is said, and the
// device has grown all the same; TestQemuGuest runs it where it may.
func TestGrowUnderWriters(t *testing.T) {
	path := t.TempDir() + "/disk"
	dev := newFileDevice(t, path, 64<<20)
	f := attach(t, dev, "grow")
	mkfs(t, f.BlockDevice())
	dir := mount(t, f)
	var g errgroup.Group
	stop := make(chan struct{})
	written := make([]int, 2)
	began := make(chan struct{}, len(written))
	for w := range written {
		g.Go(func() error {
			for ; ; written[w]++ {
				select {
				case <-stop:
					return nil
				default:
				}
				err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%d", w, written[w])),
					record(written[w]), 0o600)
				if written[w] == 0 {
					began <- struct{}{}
				}
				if err != nil {
					return err
				}
			}
		})
	}
	for range written {
		<-began // else all may have grown before anybody writes, on a busy host
	}
	before, may := spaceOf(t, dir), mayResize(t)
	for _, size := range []int64{64<<20 + 4096, 100 << 20, 128<<20 + 8<<20,
		257<<20 + 4096, endSize} {
		dev.grow(t, size)
		for range 2 {
			if err := f.Resize(); err != nil {
				t.Fatal(err)
			}
		}
		if got := sizeOf(t, f.BlockDevice()); got != size {
			t.Fatalf("the block device has %d bytes, want %d", got, size)
		}
		grown, err := frontend.GrowExt4(f.BlockDevice(), dir)
		if !may {
			if !errs.Is(err, errs.Denied) || errs.RemedyOf(err) == "" || grown {
				t.Errorf("without CAP_SYS_RESOURCE: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("to %d bytes: %v", size, err)
		}
		if again, err := frontend.GrowExt4(f.BlockDevice(), dir); again || err != nil {
			t.Errorf("a second time it grew again (%v), or could not: %v", again, err)
		}
		after := spaceOf(t, dir)
		if grown != (after > before) || size-after > 48<<20 {
			t.Errorf("of %d bytes the file system has %d, before %d; grown: %v", size, after,
				before, grown)
		}
		before = after
	}
	close(stop)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if may { // what is new can be used
		if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 250<<20),
			0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Log("not allowed to resize a mounted ext4: only the device has grown")
	}
	unmount(t, dir)
	closeClean(t, f)
	if err := frontend.Fsck(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again := attach(t, newFileDevice(t, path, endSize), "grow")
	dir = mount(t, again)
	for w, n := range written {
		for i := range n {
			b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-%d", w, i)))
			if err != nil || string(b) != string(record(i)) {
				t.Fatalf("file %d of writer %d has changed: %v", i, w, err)
			}
		}
		if n == 0 {
			t.Error("a writer has written nothing")
		}
	}
	unmount(t, dir)
	closeClean(t, again)
}

// mayResize reports whether this process may resize a mounted ext4.
func mayResize(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	var caps uint64
	if _, err := fmt.Sscanf(rest, "%x", &caps); err != nil {
		t.Fatal(err)
	}
	return caps&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func spaceOf(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

func sizeOf(t *testing.T, blockdev string) int64 {
	t.Helper()
	f, err := os.Open(blockdev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return size
}
