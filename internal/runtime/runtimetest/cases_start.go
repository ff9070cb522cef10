package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func testProbe(t *testing.T, e *env) {
	if err := e.open().Probe(e.context()); err != nil {
		t.Fatal(err)
	}
}

func testStartAndDial(t *testing.T, e *env) {
	vm := e.start(nil)
	if st := vm.Status(); !st.Running || time.Since(st.StartedAt) > e.Pace.Step {
		t.Fatalf("status after start: %+v", st)
	}
	for i := range 3 {
		text := fmt.Sprintf("hello %d", i)
		if ans := mustAsk(t, vm, Request{Op: "echo", Text: text}); ans.Text != text {
			t.Fatalf("echo of %q: %q", text, ans.Text)
		}
	}
	if _, err := net.InterfaceByName(vm.HostLink()); err != nil {
		t.Fatalf("host link: %v", err)
	}
	e.remove(vm)
	e.remove(vm)
	if _, err := vm.Dial(e.context()); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("dial after remove: %v", err)
	}
}

func testStartRefuses(t *testing.T, e *env) {
	vm := e.start(nil)
	same := e.spec()
	same.ID = vm.ID()
	if _, err := e.driver.Start(e.context(), same); !errs.Is(err, errs.Exists) {
		t.Errorf("start with an id in use: %v", err)
	}
	mustAsk(t, vm, Request{Op: "echo"})
	for name, change := range map[string]func(*runtime.Spec){
		"bad id":       func(s *runtime.Spec) { s.ID = "../../etc" },
		"no release":   func(s *runtime.Spec) { s.Release = t.TempDir() },
		"bad limits":   func(s *runtime.Spec) { s.Limits.MemoryMiB = -1 },
		"a cache of -": func(s *runtime.Spec) { s.CacheBytes = -1 },
	} {
		spec := e.spec()
		change(&spec)
		if _, err := e.driver.Start(e.context(), spec); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(e.dir, filepath.Base(string(spec.ID)))); err == nil {
			t.Errorf("%s: a directory is left", name)
		}
	}
}

// testStartCancelled gives up on starts after ever longer times: each gives a VM, or an error and
// no remains.
func testStartCancelled(t *testing.T, e *env) {
	e.open()
	for after := time.Duration(0); after < e.Pace.Start; after += e.Pace.Start / time.Duration(
		e.Pace.Moments) {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		vm, err := e.driver.Start(ctx, e.spec())
		cancel()
		if err == nil {
			mustAsk(t, vm, Request{Op: "echo"})
			e.remove(vm)
		}
		if left := leftovers(e.dir, e.ids); len(left) > 0 && err != nil {
			// Links go a moment after their namespace.
			e.checkNothingLeft(e.context())
		}
	}
}

func testStartMany(t *testing.T, e *env) {
	e.open()
	vms := make([]runtime.VM, e.Pace.Many)
	var g errgroup.Group
	for i := range vms {
		spec := e.spec()
		spec.CacheBytes = cacheSize
		g.Go(func() (err error) {
			vms[i], err = e.driver.Start(e.context(), spec)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		boot := mustAsk(t, vm, Request{Op: "read-file", Path: "/run/sluice/boot.json"})
		if !strings.Contains(string(boot.Data), string(vm.ID())) {
			t.Errorf("VM %s answers as %s", vm.ID(), boot.Data)
		}
	}
	for _, vm := range vms {
		g.Go(func() error { return vm.Remove(e.context()) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func testBootDocument(t *testing.T, e *env) {
	boot := append([]byte(`{"any":"bytes","and":"`), bytes.Repeat([]byte{0, 0xff, 'x'}, 50_000)...)
	vm := e.start(func(s *runtime.Spec) { s.Boot = boot })
	ans := mustAsk(t, vm, Request{Op: "read-file", Path: "/run/sluice/boot.json"})
	if !bytes.Equal(ans.Data, boot) {
		t.Fatalf("boot document: %d bytes, want %d", len(ans.Data), len(boot))
	}
}

func testHostLink(t *testing.T, e *env) {
	vm := e.start(nil)
	// The gateway's port: a worker on this host may have closed all others.
	l, err := net.Listen("tcp6", net.JoinHostPort(guestapi.HostLinkIP+"%"+vm.HostLink(),
		strconv.Itoa(guestapi.GatewayPort)))
	if err != nil {
		t.Fatalf("listen on the host link: %v", err)
	}
	var g errgroup.Group
	g.Go(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(conn)
		_, werr := conn.Write(bytes.ToUpper(b))
		return errors.Join(err, werr, conn.Close())
	})
	ans := mustAsk(t, vm, Request{Op: "dial-host", Number: guestapi.GatewayPort,
		Text: "from the guest"})
	if ans.Text != "FROM THE GUEST" {
		t.Errorf("answer over the link: %q", ans.Text)
	}
	if err := errors.Join(g.Wait(), l.Close()); err != nil {
		t.Error(err)
	}
	seen := mustAsk(t, vm, Request{Op: "look"}).Seen
	if got := seen.Links[guestapi.LinkName]; got != "" && got != guestapi.GuestLinkIP+"/64" {
		t.Errorf("the guest's link has %q", got)
	}
}

const cacheDevice = "/dev/sluice-cache"

// cacheSize is that of every VM with a cache: a driver may keep something per size, and make it
// once.
const cacheSize = 1<<30 + 4096

func testCacheDevice(t *testing.T, e *env) {
	vm := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	other := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	if got := mustAsk(t, vm, Request{Op: "size", Path: cacheDevice}).Number; got != cacheSize {
		t.Fatalf("cache device has %d bytes", got)
	}
	for _, at := range []int64{0, 1 << 20, cacheSize - 4096} {
		data := bytes.Repeat([]byte{byte(at>>20) + 1}, 4096)
		mustAsk(t, vm, Request{Op: "write-at", Path: cacheDevice, Number: at, Data: data})
		got := mustAsk(t, vm, Request{Op: "read-at", Path: cacheDevice, Number: at,
			Data: make([]byte, 4096)})
		if !bytes.Equal(got.Data, data) {
			t.Errorf("at %d: read differs from what was written", at)
		}
		fresh := mustAsk(t, other, Request{Op: "read-at", Path: cacheDevice, Number: at,
			Data: make([]byte, 4096)})
		if !bytes.Equal(fresh.Data, make([]byte, 4096)) {
			t.Errorf("at %d: another VM's cache isn't empty", at)
		}
	}
	e.remove(vm)
	e.remove(other)
	without := e.start(nil)
	if _, err := Ask(e.context(), without, Request{Op: "size", Path: cacheDevice}); err == nil {
		t.Error("a VM without a cache has a cache device")
	}
}

func testConsole(t *testing.T, e *env) {
	vm := e.start(nil)
	mustAsk(t, vm, Request{Op: "print", Text: "a line for people"})
	ctx := e.context()
	for {
		b, err := os.ReadFile(vm.ConsolePath())
		if err == nil && strings.Contains(string(b), "guest: up") &&
			strings.Contains(string(b), "a line for people") {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("console: %q, %v", b, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// testIsolation looks with the guest's eyes for what the boundary doesn't name.
func testIsolation(t *testing.T, e *env) {
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SLUICE_HOST_SECRET", "of the host")
	closeFD := openInherited(t, secret)
	vm := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	closeFD()
	neighbour := e.start(nil)
	seen := mustAsk(t, vm, Request{Op: "look"}).Seen
	if seen.PID != 1 {
		t.Errorf("init has pid %d", seen.PID)
	}
	if i := slices.IndexFunc(seen.Env,
		func(v string) bool { return strings.Contains(v, "of the host") }); i >= 0 {
		t.Errorf("the worker's environment is visible: %s", seen.Env[i])
	}
	for fd, target := range seen.FDs {
		if strings.Contains(target, "host-secret") || !e.OwnKernel &&
			strings.HasPrefix(target, "pipe:") {
			t.Errorf("descriptor %s is the worker's: %s", fd, target)
		}
	}
	for name := range seen.Links {
		if name != "lo" && name != guestapi.LinkName {
			t.Errorf("the guest sees interface %s", name)
		}
	}
	for _, p := range seen.Processes {
		if strings.Contains(p, filepath.Base(os.Args[0])[:4]) {
			t.Errorf("the guest sees the worker: %s", p)
		}
	}
	for _, path := range []string{secret, e.dir, vm.ConsolePath(), "/proc/1/root" + secret, "/home",
		"/etc/passwd"} {
		ans, err := Ask(e.context(), vm, Request{Op: "read-file", Path: path})
		if err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("the guest reads %s of the host: %q, %v", path, ans.Data, err)
		}
	}
	if _, err := Ask(e.context(), vm, Request{Op: "write-at", Path: "/usr/bin/sluice-init",
		Data: []byte("x")}); err == nil {
		t.Error("the guest can write to its release")
	}
	if err := neighbour.Kill(e.context()); err != nil {
		t.Error(err)
	}
	mustAsk(t, vm, Request{Op: "echo"})
}
