//go:build qemu

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/qemu"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	ownDisk    = "disks/0100000000000a"
	otherDisk  = "disks/0100000000000b"
	ownToken   = "token-of-this-vm"
	otherToken = "token-of-another-vm"
)

// TestHostileQemuVMStaysInItsPrefix is about a VM that has been taken over as a whole, kernel,
// platform, token and all. From within it, past everything that holds user code back, it asks the
// store gateway for other disks, to read and to write, in every way of putting it (invariant 13).
// User code alone doesn't get that far: TestQemuUserCodeStaysInItsMachine.
func TestHostileQemuVMStaysInItsPrefix(t *testing.T) {
	store := twoDisks(t)
	vm := hostileVM(t)
	own, other := serveGateway(t, store, func(ctx context.Context) (net.Listener,
		error) {
		return gateway.Listen(ctx, vm.HostLink())
	}),
		serveGateway(t, store, func(ctx context.Context) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		})
	grant(t, store, own, ownDisk, ownToken)
	grant(t, store, other, otherDisk, otherToken)
	ask := func(token, method, target, header, body string) string {
		return strings.Fields(askGateway(t, vm, token, method, target, header, body))[1]
	}
	if got := askGateway(t, vm, ownToken, "GET", "/list?prefix="+ownDisk+"/", "",
		""); !strings.Contains(got, `"key"`) {
		t.Fatalf("a list of its own objects: %s: the rest would prove nothing", got)
	}

	if got := ask(ownToken, "GET", "/o/"+ownDisk+"/head", "", ""); got != "200" {
		t.Fatalf("its own head: %s: the rest would prove nothing", got)
	}
	if got := ask(ownToken, "PUT", "/o/"+ownDisk+"/seg/1/x", "If-None-Match: *",
		"mine"); got != "200" {
		t.Fatalf("an object of its own: %s: the rest would prove nothing", got)
	}
	before := objects(t, store)
	etag := before[otherDisk+"/head"]
	paths := []string{
		otherDisk + "/head", otherDisk + "/machine.json", otherDisk + "/seg/1/x",
		otherDisk + "/log/1/0", otherDisk + "/new",
		ownDisk + "/../0100000000000b/head", ownDisk + "/%2e%2e/0100000000000b/head",
		ownDisk + "%2F..%2F0100000000000b%2Fhead",
		ownDisk + "/seg/../../0100000000000b/seg/1/x", ownDisk + "b/head",
		"/" + otherDisk + "/head", "releases/any", "fleet.json",
	}
	reads := [][2]string{{"GET", ""}, {"HEAD", ""}, {"GET", "Range: bytes=0-9"}}
	writes := [][2]string{{"PUT", ""}, {"PUT", "If-None-Match: *"},
		{"PUT", `If-Match: "` + etag + `"`}, {"DELETE", ""}, {"POST", ""}}
	for _, path := range paths {
		for _, try := range slices.Concat(reads, writes) {
			if got := ask(ownToken, try[0], "/o/"+path, try[1], "not mine"); !refused(got) {
				t.Errorf("%s %s (%s): %s", try[0], path, try[1], got)
			}
		}
	}
	for _, prefix := range []string{"", "disks/", otherDisk, otherDisk + "/", ownDisk + "/../",
		ownDisk + "/..%2F"} {
		// The answer to a list begins before the store is asked: what tells is whether an object is
		// in it.
		got := askGateway(t, vm, ownToken, "GET", "/list?prefix="+prefix, "", "")
		if strings.Contains(got, `"key"`) || !strings.Contains(got, "doesn't let this VM list") &&
			!strings.Contains(got, " 400 ") {
			t.Errorf("list %q: %s", prefix, got)
		}
	}
	// another VM's token is good on that VM's link only
	for _, token := range []string{otherToken, "", "guessed"} {
		for _, disk := range []string{ownDisk, otherDisk} {
			for _, try := range [][2]string{{"GET", "/o/" + disk + "/head"},
				{"PUT", "/o/" + disk + "/seg/1/y"}, {"GET", "/list?prefix=" + disk + "/"}} {
				if got := ask(token, try[0], try[1], "", "not mine"); !refused(got) {
					t.Errorf("%s %s with token %q: %s", try[0], try[1], token, got)
				}
			}
		}
	}
	if after := objects(t, store); !maps.Equal(before, after) {
		t.Errorf("the store has changed:\n%v\n%v", before, after)
	}
	own.Revoke()
	if got := ask(ownToken, "GET", "/o/"+ownDisk+"/head", "", ""); !refused(got) {
		t.Errorf("its own head, after its token was revoked: %s", got)
	}
}

// refused tells whether a status says no: to a bad name or token, to what no token lets at, to what
// no path leads to, or to a method that there isn't.
func refused(status string) bool {
	return slices.Contains([]string{"400", "401", "403", "404", "405", "501", "301", "307"}, status)
}

func twoDisks(t *testing.T) blob.Store {
	t.Helper()
	store, err := fileblob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for _, path := range []string{ownDisk, otherDisk} {
		if _, err := disk.Create(t.Context(), store, path,
			disk.CreateOptions{Size: 16 << 20}); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"/machine.json", "/log/1/0"} {
			if _, err := store.Put(t.Context(), path+key, []byte("secret")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, key := range []string{otherDisk + "/seg/1/x", "releases/any", "fleet.json"} {
		if _, err := store.Put(t.Context(), key, []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// hostileVM is one whose init does what the test says.
func hostileVM(t *testing.T) runtime.VM {
	t.Helper()
	release := runtimetest.Release(t)
	boot := filepath.Join(fleettest.Release(t), "boot")
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", boot,
		filepath.Join(release, "boot")).CombinedOutput(); err != nil {
		t.Fatalf("add kernel: %v\n%s", err, out)
	}
	dir := t.TempDir()
	driver, err := qemu.New(qemu.Config{
		Dir: filepath.Join(dir, "vms"), CacheDir: filepath.Join(dir, "cache"),
		Logger:       slog.New(slog.DiscardHandler),
		CgroupParent: "sluice-test/" + filepath.Base(filepath.Dir(dir)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	})
	vm, err := driver.Start(t.Context(), runtime.Spec{
		ID: fleet.VMID("0bad0bad"), Release: release, Boot: []byte("{}"),
		Limits: fleet.Resources{MemoryMiB: 256},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := vm.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return vm
}

func serveGateway(t *testing.T, store blob.Store,
	listen func(context.Context) (net.Listener, error)) *gateway.Gateway {
	t.Helper()
	g := gateway.New(gateway.Config{Store: store, Logger: slog.New(slog.DiscardHandler),
		Listen: listen})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	<-g.Ready()
	return g
}

func grant(t *testing.T, store blob.Store, g *gateway.Gateway, path, token string) {
	t.Helper()
	identity, err := gateway.ReadIdentity(t.Context(), store, path)
	if err != nil {
		t.Fatal(err)
	}
	g.Grant(gateway.Access{Token: token, DiskPath: path, Generation: 1, Writable: true,
		Disk: identity})
}

// askGateway sends a request from within the VM, byte for byte, and returns the answer likewise.
func askGateway(t *testing.T, vm runtime.VM, token, method, target, header, body string) string {
	t.Helper()
	text := fmt.Sprintf(
		"%s %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: %d\r\n", method,
		target, len(body))
	if token != "" {
		text += "Authorization: Bearer " + token + "\r\n"
	}
	if header != "" {
		text += header + "\r\n"
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := runtimetest.Ask(ctx, vm, runtimetest.Request{Op: "ask-host",
		Number: guestapi.GatewayPort, Text: text + "\r\n" + body})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	if !strings.HasPrefix(got.Text, "HTTP/1.1 ") || len(strings.Fields(got.Text)) < 2 {
		t.Fatalf("%s %s: the answer is %q", method, target, got.Text)
	}
	return got.Text
}

// objects are all that is in the store, each with its version.
func objects(t *testing.T, store blob.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := store.List(t.Context(), "", "",
		func(e blob.Entry) bool { all[e.Key] = ""; return true }); err != nil {
		t.Fatal(err)
	}
	for key := range all {
		o, err := store.Get(t.Context(), key, blob.All())
		if err != nil {
			t.Fatal(err)
		}
		all[key] = string(o.ETag)
	}
	return all
}
