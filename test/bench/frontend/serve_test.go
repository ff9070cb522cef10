//go:build bench

package frontend

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/test/bench/serving"
)

const (
	profileEnv = "SLUICE_BENCH_PROFILE" // a directory for CPU profiles of the serving processes

	deviceSize = 2 << 30
	cacheSize  = 3 << 30
)

func TestMain(m *testing.M) { serving.Main(m, serve) }

func serve(ctx context.Context, what, dir string) error {
	if p := os.Getenv(profileEnv); p != "" {
		f, err := os.Create(filepath.Join(p, what+".pprof"))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	dev, end, err := open(ctx, what, dir)
	if err != nil {
		return err
	}
	if err := serving.Show(ctx, dev, "bench-"+what, nil); err != nil {
		return err
	}
	return end(ctx)
}

// open makes the device: "nothing", or the engine over a store in "memory" or in a "directory".
func open(ctx context.Context, what, dir string) (disk.Device, func(context.Context) error, error) {
	var store blob.Store
	var err error
	switch what {
	case "nothing":
		d, err := newMemory(deviceSize)
		return d, func(context.Context) error { return nil }, err
	case "directory":
		store, err = fileblob.Open(filepath.Join(dir, "store"))
	default:
		store, err = newArena()
	}
	if err != nil {
		return nil, nil, err
	}
	const path = "disks/bench"
	if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: deviceSize}); err != nil {
		return nil, nil, err
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), cacheSize)
	if err != nil {
		return nil, nil, err
	}
	d, err := disk.Attach(ctx, store, path,
		disk.AttachOptions{Generation: 1, Holder: "bench", Cache: c})
	if err != nil {
		return nil, nil, err
	}
	return d, func(ctx context.Context) error { defer c.Close(); return d.Close(ctx) }, nil
}

// memory is a device that does nothing but copy.
type memory struct{ b []byte }

func newMemory(size int) (*memory, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	return &memory{b}, err
}

func (m *memory) Size() int64 { return int64(len(m.b)) }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, m.b[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	copy(m.b[off:], p)
	return nil
}

func (m *memory) Flush(context.Context) error { return nil }

func (m *memory) Trim(_ context.Context, off, length int64) error {
	return m.Zero(context.Background(), off, length)
}

func (m *memory) Zero(_ context.Context, off, length int64) error {
	clear(m.b[off : off+length])
	return nil
}

// plainLoop returns a loop device over a plain sparse file, set up as the front end sets up its
// own.
func plainLoop(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "plain")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(deviceSize); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", "--direct-io=on", "--sector-size=4096",
		name).Output()
	if err != nil {
		t.Fatal(err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "-d", dev).Run(); err != nil {
			t.Error(err)
		}
	})
	return dev
}
