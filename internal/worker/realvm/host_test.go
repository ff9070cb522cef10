// Package realvm_test runs workers on this host as it is: sandbox VMs with the real platform in
// them, real disks in a store, the real gateway on each VM's link. Only the control plane is the
// test's own, and the network namespace, so that nothing is left behind.
package realvm_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox"
	"github.com/sluice-platform/sluice/internal/worker"
)

const (
	inNamespace = "SLUICE_TEST_IN_NAMESPACE"
	underlay    = "fd00::11"
	storeURL    = "file:///pool"
)

func TestMain(m *testing.M) {
	sandbox.Child()
	if os.Getenv(inNamespace) == "" {
		os.Exit(again())
	}
	os.Exit(inside(m))
}

// again runs this program once more, in a network namespace of its own.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET,
		Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// site is what all tests share.
type site struct {
	dir        string
	releaseDir string
	store      blob.Store
	image      image.Result
}

var shared *site

func inside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-worker-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if shared, err = newSite(dir); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	defer shared.store.Close()
	return m.Run()
}

func newSite(dir string) (*site, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := makeUnderlay(); err != nil {
		return nil, err
	}
	s := &site{dir: dir}
	out, err := exec.CommandContext(ctx, "../../../scripts/build-release.sh",
		filepath.Join(dir, "releases")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("build release: %w: %s", err, out)
	}
	s.releaseDir = filepath.Join(dir, "releases", strings.TrimSpace(string(out)))
	if err := os.Mkdir(filepath.Join(dir, "pool"), 0o700); err != nil {
		return nil, err
	}
	if s.store, err = fileblob.Open(filepath.Join(dir, "pool")); err != nil {
		return nil, err
	}
	tree, err := busyboxTree(ctx, dir)
	if err != nil {
		return nil, err
	}
	s.image, err = image.Build(ctx, image.BuildConfig{
		Store: s.store, Name: "busybox", Size: 64 << 20, Source: image.Dir(tree), TempDir: dir,
	})
	return s, err
}

// makeUnderlay gives the namespace the address that other workers would route to.
func makeUnderlay() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	end := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "under0"}, PeerName: "under1"}
	if err := netlink.LinkAdd(end); err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(underlay), Mask: net.CIDRMask(64, 128)},
		Flags: syscall.IFA_F_NODAD}
	return errors.Join(netlink.AddrAdd(end, addr), netlink.LinkSetUp(end))
}

func busyboxTree(ctx context.Context, dir string) (string, error) {
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		if out, err := exec.CommandContext(ctx, "apt-get", "install", "-y",
			"busybox-static").CombinedOutput(); err != nil {
			return "", fmt.Errorf("install busybox-static: %w: %s", err, out)
		}
	}
	tree := filepath.Join(dir, "tree")
	for _, d := range []string{"bin", "etc", "tmp", "root", "data", "dev", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return "", err
		}
	}
	body, err := os.ReadFile(busybox)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/busybox"), body, 0o755); err != nil {
		return "", err
	}
	for _, applet := range []string{"sh", "cat", "echo", "sleep", "sync", "httpd", "touch"} {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", applet)); err != nil {
			return "", err
		}
	}
	return tree, os.WriteFile(filepath.Join(tree, "etc/passwd"),
		[]byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
}

// unrenewed is an identity that is not to be renewed in a test.
type unrenewed struct{ *identity.Held }

func (unrenewed) Renew(context.Context) error { return errors.New("not expected") }

// host is one worker with a driver of its own; its worker can be ended and started again.
type host struct {
	t      *testing.T
	name   string
	net    fleet.HostNet
	dir    string // of the VMs
	driver *sandbox.Driver
	feed   *feed
	ca     *identity.Authority
	held   *identity.Held
	cfg    worker.Config
	api    string
	stop   func()
}

// noNet is the network of a second worker in one namespace, where two real ones would be in each
// other's way.
type noNet struct{}

func (noNet) AddMachine(context.Context, fleet.MachineLink) error          { return nil }
func (noNet) RemoveMachine(context.Context, fleet.MachineID) error         { return nil }
func (noNet) SyncPeers(context.Context, []uint32, []fleet.Peer) error      { return nil }
func (noNet) Intact() bool                                                 { return true }
func (noNet) Wire() fleet.Wire                                             { return fleet.Wire{} }
func (noNet) TunnelOffered(context.Context, fleet.TunnelEnd) error         { return nil }
func (noNet) RenewTunnel(context.Context, time.Duration) (bool, error)     { return false, nil }
func (noNet) Restore(_ context.Context, _ []fleet.MachineLink) (err error) { return nil }

func newHost(t *testing.T, name string, realNet bool) *host {
	t.Helper()
	h := &host{t: t, name: name, net: noNet{}, feed: newFeed(), stop: func() {}}
	h.ca = identitytest.Authority(t, nil)
	h.held = identitytest.Worker(t, h.ca, name, 1)
	if realNet {
		n, err := hostnet.New(hostnet.Config{Address: netip.MustParseAddr(underlay),
			Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		h.net = n
	}
	data := t.TempDir()
	h.cfg = worker.Config{
		Worker: fleet.WorkerID(name), DataDir: filepath.Join(data, "worker"),
		Address: netip.MustParseAddr(underlay),
		APIURL:  "https://[fd00::11]:7600", Version: "test",
		Capacity: fleet.Resources{CPUMillis: 4000, MemoryMiB: 4096},
		Release:  fleet.ReleaseID(filepath.Base(shared.releaseDir)), ReleaseDir: shared.releaseDir,
		Pool: 1, CacheBytes: 64 << 20,
	}
	h.dir = filepath.Join(data, "vms")
	h.openDriver()
	t.Cleanup(h.clean)
	return h
}

func (h *host) openDriver() {
	h.t.Helper()
	var err error
	h.driver, err = sandbox.New(sandbox.Config{
		Dir: h.dir, CgroupParent: fmt.Sprintf("sluice-test-%d/%s", os.Getpid(), h.name),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// start runs a worker, as a daemon's start would.
func (h *host) start() {
	h.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.api = "https://" + listener.Addr().String()
	out, level := io.Writer(h.t.Output()), slog.LevelInfo
	w, err := worker.New(h.cfg, worker.Deps{
		// whatever else this host does
		Pressure: func() (fleet.Pressure, error) { return fleet.Pressure{}, nil },
		Driver:   h.driver, HostNet: h.net, Server: h.feed,
		Listener: tls.NewListener(listener, identity.ServerConfig(h.held)),
		Identity: unrenewed{h.held},
		OpenStore: func(context.Context, string) (blob.Store,
			error) {
			return keepOpen{shared.store}, nil
		},
		Logger: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- w.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-over; err != nil {
			h.t.Errorf("worker %s ended with %v", h.name, err)
		}
		h.stop = func() {}
	}
}

// restart ends the worker as a whole, driver and all, and starts another on what it left.
func (h *host) restart() {
	h.t.Helper()
	h.stop()
	h.closeDriver()
	h.openDriver()
	h.feed.mu.Lock()
	h.feed.report = fleet.WorkerReport{}
	h.feed.mu.Unlock()
	h.start()
}

func (h *host) closeDriver() {
	if err := h.driver.Close(); err != nil {
		h.t.Errorf("close driver: %v", err)
	}
}

// keepOpen is the shared store, which no worker closes.
type keepOpen struct{ blob.Store }

func (keepOpen) Close() error { return nil }

// clean ends the worker and removes what it left running, which outlives it.
func (h *host) clean() {
	h.stop()
	h.closeDriver()
	h.openDriver()
	defer h.closeDriver()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	vms, err := h.driver.Adopt(ctx)
	if err != nil {
		h.t.Errorf("find VMs: %v", err)
	}
	for _, vm := range vms {
		if h.t.Failed() {
			console, _ := os.ReadFile(vm.ConsolePath())
			h.t.Logf("console of VM %s:\n%s", vm.ID(), console)
		}
		if err := vm.Remove(ctx); err != nil {
			h.t.Errorf("remove VM %s: %v", vm.ID(), err)
		}
	}
}
