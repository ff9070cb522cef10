package frontend_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const testSize = 256 << 20

// kindEnv says which front end the tests are about: fuse, or where the kernel has it, nbd;
// TestQemuGuest runs them with both. What only one of them does is tested beside it.
const kindEnv = "SLUICE_TEST_FRONTEND"

func kindUnderTest() frontend.Kind {
	return frontend.Kind(cmp.Or(os.Getenv(kindEnv), string(frontend.FUSE)))
}

func attach(t testing.TB, dev *fileDevice, name string) frontend.Shown {
	t.Helper()
	f, err := frontend.Show(t.Context(), dev, kindUnderTest(), frontend.Config{
		Name:   name,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		_ = f.Close(ctx) // again, where the test has closed it; its result was looked at there
	})
	return f
}

func mkfs(t testing.TB, target string) {
	t.Helper()
	if err := frontend.Mkfs(t.Context(), target, frontend.MkfsOptions{Label: "test"}); err != nil {
		t.Fatal(err)
	}
}

func mount(t testing.TB, f frontend.Shown) string {
	t.Helper()
	target := t.TempDir()
	if err := frontend.MountExt4(t.Context(), f.BlockDevice(), target,
		unix.MS_NOATIME); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

func unmount(t testing.TB, target string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := frontend.Unmount(ctx, target); err != nil {
		t.Fatal(err)
	}
}

func closeClean(t testing.TB, f frontend.Shown) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// backingOf returns what sysfs says of what serves a block device, or "" if nothing does.
func backingOf(blockdev string) string {
	dir := "/sys/block/" + filepath.Base(blockdev)
	loop, _ := os.ReadFile(dir + "/loop/backing_file")
	nbd, _ := os.ReadFile(dir + "/backend")
	return string(bytes.TrimSpace(append(loop, nbd...)))
}

// eventually waits, for at most 10 s, until what holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestFileSystemOnDevice(t *testing.T) {
	path := t.TempDir() + "/disk"
	dev := newFileDevice(t, path, testSize)
	f := attach(t, dev, "fs")
	if got := backingOf(f.BlockDevice()); !strings.Contains(got, "sluice-") ||
		!strings.HasSuffix(got, "-fs") {
		t.Errorf("sysfs says that %q serves the device", got)
	}
	if f.Kind() != kindUnderTest() {
		t.Errorf("it is shown by %s", f.Kind())
	}
	mkfs(t, f.BlockDevice())
	dir := mount(t, f)
	sums := map[string][32]byte{}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		body := make([]byte, rng.IntN(3<<20))
		for j := range body {
			body[j] = byte(rng.Uint32())
		}
		name := fmt.Sprintf("file-%d", i)
		writeSynced(t, filepath.Join(dir, name), body)
		sums[name] = sha256.Sum256(body)
	}
	if dev.flushes.Load() < 20 {
		t.Errorf("%d flushes reached the device for 20 fsyncs", dev.flushes.Load())
	}
	unmount(t, dir)
	closeClean(t, f)
	if n := dev.unaligned.Load(); n > 0 {
		t.Errorf("%d accesses were not aligned to blocks", n)
	}
	if err := frontend.Fsck(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again := attach(t, newFileDevice(t, path, testSize), "fs")
	dir = mount(t, again)
	for name, sum := range sums {
		body, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(body) != sum {
			t.Errorf("%s has changed", name)
		}
	}
	unmount(t, dir)
	closeClean(t, again)
}

func writeSynced(t testing.TB, name string, body []byte) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestTrimReachesTheDevice(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", testSize)
	f := attach(t, dev, "trim")
	mkfs(t, f.BlockDevice())
	dir := mount(t, f)
	big := filepath.Join(dir, "big")
	writeSynced(t, big, bytes.Repeat([]byte{1}, 32<<20))
	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	unmount(t, dir) // commits the removal
	if err := frontend.MountExt4(t.Context(), f.BlockDevice(), dir, 0); err != nil {
		t.Fatal(err)
	}
	before := dev.trimmed.Load()
	if err := frontend.Trim(dir); err != nil {
		t.Fatal(err)
	}
	if got := dev.trimmed.Load() - before; got < 32<<20 {
		t.Errorf("trimmed %d bytes after a file of 32 MiB was removed", got)
	}
	unmount(t, dir)
	closeClean(t, f)
}

func TestZeroingReachesTheDevice(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", testSize)
	f := attach(t, dev, "zero")
	fd, err := unix.Open(f.BlockDevice(), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, bytes.Repeat([]byte{7}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 4096,
		8192); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	// The NBD client of older kernels has no request for it, and writes zeros.
	if kindUnderTest() == frontend.FUSE && dev.zeroed.Load()+dev.trimmed.Load() < 8192 {
		t.Errorf("zeroed %d and trimmed %d bytes of 8192", dev.zeroed.Load(), dev.trimmed.Load())
	}
	got := make([]byte, 16<<10)
	if err := dev.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 16<<10)
	clear(want[4096 : 4096+8192])
	if !bytes.Equal(got, want) {
		t.Error("the device doesn't hold what was written and zeroed")
	}
}

func TestDeviceErrorsAreNotSwallowed(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", testSize)
	f := attach(t, dev, "eio")
	fd, err := unix.Open(f.BlockDevice(), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, bytes.Repeat([]byte{1}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	dev.failFlush.Store(true)
	if err := unix.Fsync(fd); err == nil {
		t.Error("fsync was acknowledged, but the device refused the flush")
	}
	dev.failFlush.Store(false)
	dev.failWrites.Store(true)
	_, writeErr := unix.Pwrite(fd, bytes.Repeat([]byte{2}, 4096), 4096)
	if err := unix.Fsync(fd); err == nil && writeErr == nil {
		t.Error("a write was acknowledged, but the device refused it")
	}
	dev.failWrites.Store(false)
}

func TestCloseTearsAwayWhatIsInUse(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", testSize)
	f := attach(t, dev, "busy")
	mkfs(t, f.BlockDevice())
	dir := mount(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := f.Close(ctx)
	if !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) == "" {
		t.Fatalf("close of a mounted device: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("close took %s", took)
	}
	if err := os.WriteFile(filepath.Join(dir, "late"), []byte("x"), 0o600); err == nil {
		syncErr := func() error {
			fd, err := unix.Open(dir, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Syncfs(fd)
		}()
		if syncErr == nil {
			t.Error("a write after the device was torn away was acknowledged")
		}
	}
	if n, err := frontend.Sweep(dir); n != 1 || err != nil {
		t.Errorf("swept %d mounts: %v", n, err)
	}
	eventually(t, "device detached", func() bool { return backingOf(f.BlockDevice()) == "" })
}

func TestStalledDeviceDoesNotHangClose(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", testSize)
	f := attach(t, dev, "stall")
	fd, err := unix.Open(f.BlockDevice(), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	dev.stall.Store(true)
	if _, err := unix.Pwrite(fd, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return unix.Close(fd) }) // writes back, and so waits for the device
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := f.Close(ctx); !errs.Is(err, errs.Conflict) {
		t.Errorf("close of a stalled device: %v", err)
	}
	_ = g.Wait() // EIO or not: that it ends is what counts
	eventually(t, "device detached", func() bool { return backingOf(f.BlockDevice()) == "" })
}

func TestFsckTellsDamage(t *testing.T) {
	path := t.TempDir() + "/disk"
	dev := newFileDevice(t, path, testSize)
	mkfs(t, path)
	if err := frontend.Fsck(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.f.WriteAt(bytes.Repeat([]byte{0xff}, 64<<10), 8192); err != nil {
		t.Fatal(err)
	}
	if err := frontend.Fsck(t.Context(), path); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("file system with overwritten group descriptors: %v", err)
	}
}

func TestAttachManyAtOnce(t *testing.T) {
	const n = 12
	var g errgroup.Group
	dir := t.TempDir()
	for i := range n {
		dev := newFileDevice(t, fmt.Sprintf("%s/%d", dir, i), 4<<20)
		g.Go(func() error {
			f, err := frontend.Show(t.Context(), dev, kindUnderTest(),
				frontend.Config{Name: fmt.Sprintf("many-%d", i)})
			if err != nil {
				return err
			}
			if got := backingOf(f.BlockDevice()); !strings.HasSuffix(got,
				fmt.Sprintf("-many-%d", i)) {
				err = fmt.Errorf("device %d is served by %q", i, got)
			}
			closeErr := f.Close(t.Context())
			if err == nil {
				err = closeErr
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestAttachRefusesBadInput(t *testing.T) {
	dev := newFileDevice(t, t.TempDir()+"/disk", 4<<20)
	for _, name := range []string{"", "a/b", string(make([]byte, 65))} {
		if _, err := frontend.Show(t.Context(), dev, kindUnderTest(),
			frontend.Config{Name: name}); !errs.Is(err, errs.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	dev.size.Store(4095)
	if _, err := frontend.Show(t.Context(), dev, kindUnderTest(),
		frontend.Config{Name: "odd"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("odd size: %v", err)
	}
}

func TestOwnDeviceDirectory(t *testing.T) {
	devDir := t.TempDir()
	dev := newFileDevice(t, t.TempDir()+"/disk", 4<<20)
	f, err := frontend.Show(t.Context(), dev, kindUnderTest(),
		frontend.Config{Name: "owndev", DevDir: devDir})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(f.BlockDevice()) != devDir {
		t.Errorf("block device %s is not in %s", f.BlockDevice(), devDir)
	}
	if err := frontend.Mkfs(t.Context(), f.BlockDevice(), frontend.MkfsOptions{}); err != nil {
		t.Error(err)
	}
	closeClean(t, f)
	if _, err := os.Stat(f.BlockDevice()); !os.IsNotExist(err) {
		t.Errorf("the node that was made is still there: %v", err)
	}
}
