package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
)

const (
	diskPath = "disks/a"
	diskSize = 64 << 20
)

func testCtx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// newDisk attaches a new disk in a store of its own.
func newDisk(t *testing.T) *disk.Disk {
	t.Helper()
	store := memblob.New()
	if _, err := disk.Create(testCtx(t), store, diskPath,
		disk.CreateOptions{Size: diskSize}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(testCtx(t), store, diskPath,
		disk.AttachOptions{Generation: 1, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return d
}

// served is a running server.
type served struct {
	addr string // of a unix socket, or host:port
	uri  string
	stop func() error
}

// serve runs a server for dev on a unix socket until the test ends, or stop.
func serve(t *testing.T, cfg nbd.Config) *served {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, l, cfg)
	s.uri = "nbd+unix:///?socket=" + s.addr
	return s
}

func serveOn(t *testing.T, l net.Listener, cfg nbd.Config) *served {
	t.Helper()
	srv, err := nbd.New(cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return srv.Run(ctx) })
	stopped := false
	stop := func() error {
		cancel()
		stopped = true
		return g.Wait()
	}
	t.Cleanup(func() {
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return &served{addr: l.Addr().String(), uri: "nbd://" + l.Addr().String(), stop: stop}
}

func export(d disk.Device) nbd.Config {
	return nbd.Config{Exports: []nbd.Export{{Name: "a", Description: "a test disk", Device: d}}}
}

// tool runs a program that somebody else wrote, which has to succeed, and returns what it says on
// stdout.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

func tryTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(testCtx(t), name, args...)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err := cmd.Run()
	if err != nil {
		err = errors.New(err.Error() + ": " + bad.String() + out.String())
	}
	return out.String(), err
}

// rawImage makes a sparse file with content here and there, and returns its name and content.
func rawImage(t *testing.T) (string, []byte) {
	t.Helper()
	want := make([]byte, diskSize)
	f, err := os.Create(filepath.Join(t.TempDir(), "raw.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	for i, off := range []int64{0, 3<<20 + 4096, 17 << 20, diskSize - 8192} {
		part := want[off:min(off+(2<<20), diskSize)]
		for j := range part {
			part[j] = byte(j>>3*(i+1)) ^ byte(j)
		}
		if _, err := f.WriteAt(part, off); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name(), want
}

func checkContent(t *testing.T, d disk.Device, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := d.ReadAt(testCtx(t), got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("content differs")
	}
}

// dataBytes returns how much of a device holds content.
func dataBytes(t *testing.T, d *disk.Disk) int64 {
	t.Helper()
	var n int64
	for off := int64(0); off < d.Size(); {
		end, data, err := d.NextExtent(testCtx(t), off, d.Size())
		if err != nil {
			t.Fatal(err)
		}
		if data {
			n += end - off
		}
		off = end
	}
	return n
}

func TestServerRefusesNonsense(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newDisk(t)
	for name, cfg := range map[string]nbd.Config{
		"no export": {}, "no device": {Exports: []nbd.Export{{Name: "x"}}},
		"twice": {Exports: []nbd.Export{{Name: "x", Device: d}, {Name: "x", Device: d}}},
	} {
		if _, err := nbd.New(cfg, l); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := nbd.New(export(d)); err == nil {
		t.Error("no listener: accepted")
	}
}
