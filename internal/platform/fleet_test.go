package platform_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
	"github.com/sluice-platform/sluice/test/v2host"
)

// The parts that all tests share: a release, an image, a store, a driver. Everything in them is
// real.
type bench struct {
	dir     string
	release string
	store   blob.Store
	driver  *sandbox.Driver
	seq     atomic.Uint32
}

const (
	template   = "disks/img-busybox"
	checkpoint = "v1"
	imageBytes = 64 << 20
)

var shared *bench

func TestMain(m *testing.M) {
	v2host.Main()
	sandbox.Child()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-platform-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	b, err := newBench(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	shared = b
	code := m.Run()
	if err := b.close(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	return code
}

func newBench(dir string) (*bench, error) {
	b := &bench{dir: dir}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if b.release = os.Getenv(runtimetest.ReleaseEnv); b.release == "" {
		out, err := exec.CommandContext(ctx, "../../scripts/build-release.sh",
			filepath.Join(dir, "releases")).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("build release: %w: %s", err, out)
		}
		b.release = filepath.Join(dir, "releases", strings.TrimSpace(string(out)))
	}
	if b.store = memblob.New(); b.store == nil {
		return nil, errors.New("no store")
	}
	err := b.makeImage(ctx)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	b.driver, err = sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "vms"),
		CgroupParent: "sluice-test/" + filepath.Base(dir),
		Logger:       slog.New(slog.DiscardHandler)})
	return b, err
}

func (b *bench) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	vms, err := b.driver.Adopt(ctx)
	for _, vm := range vms {
		err = errors.Join(err, fmt.Errorf("VM %s was left", vm.ID()), vm.Remove(ctx))
	}
	return errors.Join(err, b.driver.Close())
}

// makeImage makes a tiny root file system and puts it into a template disk.
func (b *bench) makeImage(ctx context.Context) error {
	tree := filepath.Join(b.dir, "tree")
	busybox, err := busyboxPath(ctx)
	if err != nil {
		return err
	}
	for _, d := range []string{"bin", "etc", "tmp", "root", "data"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", "-L", busybox,
		filepath.Join(tree, "bin/busybox")).CombinedOutput(); err != nil {
		return fmt.Errorf("copy busybox: %w: %s", err, out)
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return err
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(tree, "bin", a)); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n",
		"etc/group":  "root:x:0:\nweb:x:1000:\n",
		"etc/hosts":  "10.0.0.1 kept\n", "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	raw := filepath.Join(b.dir, "image.ext4")
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(raw, imageBytes); err != nil {
		return err
	}
	if err := frontend.Mkfs(ctx, raw, frontend.MkfsOptions{Tree: tree, JournalMB: 4}); err != nil {
		return err
	}
	return b.writeTemplate(ctx, raw)
}

func busyboxPath(ctx context.Context) (string, error) {
	const path = "/bin/busybox"
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	out, err := exec.CommandContext(ctx, "apt-get", "install", "-y",
		"busybox-static").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("install busybox-static: %w: %s", err, out)
	}
	return path, nil
}

func (b *bench) writeTemplate(ctx context.Context, raw string) error {
	if _, err := disk.Create(ctx, b.store, template,
		disk.CreateOptions{Size: imageBytes}); err != nil {
		return err
	}
	d, err := disk.Attach(ctx, b.store, template, disk.AttachOptions{Generation: 1, Holder: "test"})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	zero := make([]byte, disk.BlockSize)
	for off := 0; off < len(data); off += disk.BlockSize {
		block := data[off : off+disk.BlockSize]
		if !bytes.Equal(block, zero) {
			if err := d.WriteAt(ctx, block, int64(off)); err != nil {
				return err
			}
		}
	}
	if _, err := d.Checkpoint(ctx, checkpoint); err != nil {
		return err
	}
	return d.Close(ctx)
}

// newDisk forks the image.
func newDisk(t *testing.T) fleet.MachineID {
	t.Helper()
	id := fleet.MachineID(fmt.Sprintf("c0%012x", shared.seq.Add(1)))
	if _, err := disk.Fork(t.Context(), shared.store, template, checkpoint, "disks/"+string(id),
		disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	return id
}

// newLargeDisk forks the image into a disk that is larger than it.
func newLargeDisk(t *testing.T, size int64) fleet.MachineID {
	t.Helper()
	id := newDisk(t)
	if _, err := disk.Grow(t.Context(), shared.store, "disks/"+string(id), size); err != nil {
		t.Fatal(err)
	}
	return id
}

// testVM is a VM with its gateway and a client of its platform.
type testVM struct {
	runtime.VM
	t     *testing.T
	http  *http.Client
	token string
	// cut makes the gateway refuse everything.
	cut      atomic.Bool
	requests atomic.Int64
}

func startVM(t *testing.T) *testVM {
	t.Helper()
	id := fleet.VMID(fmt.Sprintf("%08x", 0xa0000000+uint32(os.Getpid())<<8+shared.seq.Add(1)))
	v := &testVM{t: t, token: "token-of-" + string(id)}
	boot, err := json.Marshal(guestapi.Boot{VM: id,
		Release: fleet.ReleaseID(filepath.Base(shared.release)), ControlToken: v.token,
		CacheDevice: "/dev/sluice-cache", Seed: []byte("0123456789abcdef0123456789abcdef"),
		WallClock: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	v.VM, err = shared.driver.Start(t.Context(),
		runtime.Spec{ID: id, Release: shared.release, Boot: boot, CacheBytes: 64 << 20,
			Limits: fleet.Resources{CPUMillis: 2000, MemoryMiB: 512}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.remove)
	v.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _,
		_ string) (net.Conn, error) {
		return v.Dial(ctx)
	}}}
	v.serveGateway()
	v.await("answers", func(guestapi.Health) bool { return true })
	return v
}

func (v *testVM) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if v.t.Failed() || os.Getenv("SLUICE_TEST_CONSOLE") != "" {
		console, _ := os.ReadFile(v.ConsolePath())
		v.t.Logf("console of %s:\n%s", v.ID(), console)
	}
	v.http.CloseIdleConnections()
	if err := v.Remove(ctx); err != nil {
		v.t.Errorf("remove VM: %v", err)
	}
}

func (v *testVM) serveGateway() {
	l, err := net.Listen("tcp6", fmt.Sprintf("[%s%%%s]:%d", guestapi.HostLinkIP, v.HostLink(),
		guestapi.GatewayPort))
	if err != nil {
		v.t.Fatal(err)
	}
	// to see which steps wait for the store
	delay, _ := time.ParseDuration(os.Getenv("SLUICE_TEST_STORE_DELAY"))
	allow := gatewayhttp.AuthorizerFunc(func(r *http.Request, op, key string, size int64) error {
		if delay > 0 {
			v.t.Logf("%s store: %s %s %s %d bytes", time.Now().Format("05.000"), op, key,
				r.Header.Get("Range"), size)
		}
		time.Sleep(delay)
		v.requests.Add(1)
		if jsonhttp.Bearer(r) != "store-token" {
			return errs.New(errs.Denied, "bad store token")
		}
		if v.cut.Load() {
			return errs.New(errs.Unavailable, "the store is cut off")
		}
		return nil
	})
	srv := &http.Server{Handler: gatewayhttp.New(shared.store, allow, gatewayhttp.Config{})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	v.t.Cleanup(func() { _ = srv.Close(); <-done })
}

// call sends a request to platformd and decodes its answer into out, if that isn't nil.
func (v *testVM) call(ctx context.Context, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vm"+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+v.token)
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e errs.Wire
		if json.Unmarshal(data, &e) != nil {
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
		}
		return e.Err()
	}
	if text, ok := out.(*string); ok {
		*text = string(data)
		return nil
	}
	if out != nil {
		return json.Unmarshal(data, out)
	}
	return nil
}

func (v *testVM) health() guestapi.Health {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Minute)
	defer cancel()
	var h guestapi.Health
	if err := v.call(ctx, http.MethodGet, guestapi.PathHealth, nil, &h); err != nil {
		v.t.Fatalf("health: %v", err)
	}
	return h
}

// awaitLimit is far more than anything takes, also on a host that has much else to do.
const awaitLimit = 2 * time.Minute

// await waits until the platform answers and cond holds.
func (v *testVM) await(what string, cond func(guestapi.Health) bool) guestapi.Health {
	v.t.Helper()
	return v.awaitFor(awaitLimit, what, cond)
}

// awaitFor is await with a limit of its own.
func (v *testVM) awaitFor(limit time.Duration, what string,
	cond func(guestapi.Health) bool) guestapi.Health {
	v.t.Helper()
	deadline := time.Now().Add(limit)
	var last guestapi.Health
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Second)
		last = guestapi.Health{} // what is absent now must not stay from before
		err := v.call(ctx, http.MethodGet, guestapi.PathHealth, nil, &last)
		cancel()
		if err == nil && cond(last) {
			return last
		}
		time.Sleep(5 * time.Millisecond)
	}
	v.t.Fatalf("%s: not within %v; health %+v", what, limit, last)
	return last
}

func inState(want guestapi.State) func(guestapi.Health) bool {
	return func(h guestapi.Health) bool { return h.State == want }
}

// made holds for an empty VM that has its container: what waits in a pool.
func made(h guestapi.Health) bool { return h.State == guestapi.StateEmpty && len(h.Steps) > 0 }

func bindOf(id fleet.MachineID, gen fleet.Generation, services ...fleet.Service) guestapi.Bind {
	return guestapi.Bind{Machine: id, Generation: gen,
		Instance: fleet.InstanceID(fmt.Sprintf("01INSTANCE%d", gen)), Name: "box", App: "app",
		Network: "net", Address: netip.MustParseAddr("fdaa:0:1:0:1:0:5:2"), Worker: "w1",
		Store:  guestapi.StoreAccess{DiskPath: "disks/" + string(id), Token: "store-token"},
		Config: fleet.MachineConfig{Services: services, Env: map[string]string{"COLOUR": "blue"}}}
}

func (v *testVM) bind(b guestapi.Bind) {
	v.t.Helper()
	if err := v.call(v.t.Context(), http.MethodPost, guestapi.PathBind, b, nil); err != nil {
		v.t.Fatalf("bind: %v", err)
	}
}

func (v *testVM) release(b guestapi.Bind) guestapi.Health {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Minute)
	defer cancel()
	var h guestapi.Health
	if err := v.call(ctx, http.MethodPost, guestapi.PathReleaseMachine,
		guestapi.ReleaseMachine{Machine: b.Machine, Generation: b.Generation}, &h); err != nil {
		v.t.Fatalf("release: %v", err)
	}
	return h
}

// fsck checks a released disk: its head closed, its file system clean.
func fsck(t *testing.T, id fleet.MachineID) {
	t.Helper()
	path := "disks/" + string(id)
	info, err := disk.Info(t.Context(), shared.store, path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Head.State != "closed" {
		t.Errorf("disk's head is %s", info.Head.State)
	}
	d, err := disk.Attach(t.Context(), shared.store, path,
		disk.AttachOptions{Generation: info.Head.Generation, Holder: info.Head.Holder})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abandon()
	if d.Stats().Replayed != 0 {
		t.Errorf("%d log objects replayed after a clean close", d.Stats().Replayed)
	}
	raw := filepath.Join(t.TempDir(), "disk.raw")
	data := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(raw, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("e2fsck", "-f", "-n", raw).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
	if bytes.Contains(out, []byte("recovery")) ||
		bytes.Contains(out, []byte("recovering journal")) {
		t.Errorf("file system was not unmounted: %s", out)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
