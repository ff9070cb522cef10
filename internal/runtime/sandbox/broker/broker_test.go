package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// serveBroker runs a broker for a VM whose root is uid, in a directory of the host, and returns the
// path of its socket.
func serveBroker(t *testing.T, uid uint32, dir string) string {
	t.Helper()
	users, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{Listener: l, UID: uid, Users: users, Dir: dir,
		Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(g.Wait(), users.Close()); err != nil {
			t.Error(err)
		}
	})
	return socket
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestNothingWithoutADisk: before a VM has shown a disk there is nothing that its broker mounts,
// grows or gives out, least of all the file system of the host that its directory is on.
func TestNothingWithoutADisk(t *testing.T) {
	c := diskbroker.At(serveBroker(t, uint32(os.Getuid()), t.TempDir()))
	ctx := within(t)
	users, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	for what, do := range map[string]func() error{
		"attach": func() error { _, err := c.Attach(ctx); return err },
		"resize": c.Resize,
		"mount":  func() error { _, err := c.Mount(ctx); return err },
		"grow":   func() error { _, _, err := c.Grow(ctx); return err },
		"tree":   func() error { _, err := c.Tree(ctx, users); return err },
	} {
		if err := do(); !errs.Is(err, errs.Conflict) {
			t.Errorf("%s without a disk: %v", what, err)
		}
	}
	// What a VM gives back that has no disk is given back.
	for what, do := range map[string]func() error{
		"barriers": func() error { return c.Barriers(true) }, "detach": c.Detach, "abort": c.Abort,
		"unmount": func() error { return c.Unmount(ctx) }, "drop": c.Drop,
	} {
		if err := do(); err != nil {
			t.Errorf("%s without a disk: %v", what, err)
		}
	}
}

// TestOnlyOwnUserNamespaces: a mount of the disk is given out for a child of the VM's user
// namespace alone. Neither the VM's own, nor one beside it, nor another file is one.
func TestOnlyOwnUserNamespaces(t *testing.T) {
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	child, other := namespace(t), namespace(t)
	b := New(Config{Users: own})
	if err := b.isWithin(child); err != nil {
		t.Errorf("a child's: %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	beside := New(Config{Users: other})
	for what, err := range map[string]error{
		"none": b.isWithin(nil), "a file": b.isWithin(null), "its own": b.isWithin(own),
		"one beside it": beside.isWithin(child), "one above it": beside.isWithin(own),
	} {
		if err == nil {
			t.Errorf("%s is taken for a user namespace of the VM", what)
		}
	}
}

// namespace returns a user namespace below the test's own.
func namespace(t *testing.T) *os.File {
	t.Helper()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "60"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait()
	})
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(p.Pid), "ns/user"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestRefusesStrangers: who isn't the VM's root gets no answer, and what isn't a request neither.
func TestRefusesStrangers(t *testing.T) {
	stranger := diskbroker.At(serveBroker(t, uint32(os.Getuid())+1, t.TempDir()))
	if err := stranger.Detach(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("somebody else's call: %v", err)
	}
	socket := serveBroker(t, uint32(os.Getuid()), t.TempDir())
	for name, request := range map[string][]byte{
		"nothing": {1}, "no operation": {0, 0}, "an unknown one": {200, 0}, "a bad flag": {4, 2},
		"a long name": append([]byte{2, 0}, make([]byte, 500)...),
	} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(make([]byte, 100))
		if n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is answered with %d bytes, %v", name, n, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := diskbroker.At(socket).Detach(); err != nil {
		t.Errorf("after all that it doesn't serve any more: %v", err)
	}
}
