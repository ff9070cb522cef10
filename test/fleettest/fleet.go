package fleettest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/devfleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// Image is the name of the image that every test fleet has.
const Image = "test"

// Options of a fleet. The zero value means two workers over a directory.
type Options struct {
	Workers int
	Store   string // as devfleet.Config.Store
	// StoreAt makes the store's URL instead. It may listen at the address, which workers reach; the
	// fleet comes up after.
	StoreAt   func(netip.Addr) string
	OTLPAt    func(netip.Addr) string // makes the endpoint of a collector, as StoreAt a store's URL
	Pool      int
	CPUs      int
	MemoryMiB int
	Runtime   string   // as devfleet.Config.Runtime; default sandbox
	FrontEnd  string   // as devfleet.Config.FrontEnd
	Release   string   // default: this tree's
	Args      []string // of the server
	// WorkerArgs are more arguments of each worker.
	WorkerArgs []string
	NoImage    bool
	// Patience is how long a machine may take to be healthy once it is created; default a minute,
	// and five where VMs boot a kernel: without KVM and on a busy host that takes its time.
	Patience time.Duration
}

// Fleet is a running fleet, and the test that it belongs to.
type Fleet struct {
	*devfleet.Fleet
	*client.Client
	cfg      devfleet.Config
	patience time.Duration
	t        testing.TB
}

// Start brings up a fleet and removes it when the test ends.
func Start(t testing.TB, o Options) *Fleet {
	t.Helper()
	root := Build(t)
	cfg := devfleet.Config{
		Dir: filepath.Join(t.TempDir(), "fleet"), Workers: max(o.Workers, 1), Store: o.Store,
		S3Server: filepath.Join(root, ".cache/bin/versitygw"),
		Binary:   filepath.Join(root, "bin/sluice"),
		Release:  cmp.Or(o.Release, release(t, root)), FrontEnd: o.FrontEnd,
		Runtime: cmp.Or(o.Runtime, "sandbox"), Pool: o.Pool, CPUs: 16, MemoryMiB: 16384,
		CacheMiB: 64, Args: o.Args, WorkerArgs: o.WorkerArgs,
	}
	if cfg.Runtime != "sandbox" { // as with Patience
		cfg.Args = append([]string{"--start-timeout", "4m"}, o.Args...)
	}
	if o.Workers == 0 {
		cfg.Workers = 2
	}
	if o.CPUs > 0 {
		cfg.CPUs = o.CPUs
	}
	if o.MemoryMiB > 0 {
		cfg.MemoryMiB = o.MemoryMiB
	}
	df, err := devfleet.Open(cfg.Dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if o.StoreAt != nil {
		cfg.Store = o.StoreAt(df.ServerAddress())
	}
	if o.OTLPAt != nil {
		cfg.OTLP = o.OTLPAt(df.ServerAddress())
	}
	f := &Fleet{Fleet: df, cfg: cfg, patience: o.Patience, t: t}
	if f.patience == 0 {
		f.patience = time.Minute
		if cfg.Runtime != "sandbox" {
			f.patience = 5 * time.Minute
		}
	}
	t.Cleanup(f.remove)
	if err := df.Up(t.Context(), cfg, func(string) {}); err != nil {
		t.Fatalf("up: %v", err)
	}
	f.Client = connect(t, cfg.Dir)
	if !o.NoImage {
		if _, err := f.CreateImage(t.Context(), Image, 256<<20,
			bytes.NewReader(ImageTar(t))); err != nil {
			t.Fatalf("create image: %v", err)
		}
	}
	return f
}

// remove takes the fleet down the way a user does, and fails the test if anything is left.
func (f *Fleet) remove() {
	if f.t.Failed() {
		f.dump()
	}
	ctx, cancel := context.WithTimeout(context.Background(), onhost.Patient(2*time.Minute))
	defer cancel()
	out, err := exec.CommandContext(ctx, f.cfg.Binary, "dev", "down", "--dir",
		f.cfg.Dir).CombinedOutput()
	if err != nil {
		f.t.Errorf("dev down: %v\n%s", err, out)
	}
	f.checkNothingLeft()
}

func connect(t testing.TB, dir string) *client.Client {
	t.Helper()
	at, err := client.ReadFleetFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(at.URL, at.Token, client.WithCA(at.CA))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// LedgerConfig is a machine that runs the ledger, with a readiness check.
func LedgerConfig() api.MachineConfig {
	return api.MachineConfig{
		Image: Image, CPUs: 0.25, MemoryMiB: 128,
		Services: []api.Service{{Name: "ledger", Cmd: []string{"/bin/ledger", "/data/ledger"},
			HTTPPort: 8080,
			Check:    &api.Check{Kind: "http", Port: 8080, Path: "/"}}},
	}
}

// Create creates a machine and waits until it is healthy.
func (f *Fleet) Create(name, network, worker string, cfg api.MachineConfig) api.Machine {
	f.t.Helper()
	m, err := f.CreateMachine(f.t.Context(),
		api.CreateMachine{Name: name, App: "test", Network: network, Worker: worker, Config: cfg})
	if err != nil {
		f.t.Fatalf("create machine %s: %v", name, err)
	}
	return f.WaitHealthy(m.ID, f.patience)
}

// WaitHealthy waits until a machine is started and healthy.
func (f *Fleet) WaitHealthy(ref string, limit time.Duration) api.Machine {
	f.t.Helper()
	var m api.Machine
	f.Eventually(limit, func() error {
		var err error
		m, err = f.Machine(f.t.Context(), ref)
		if err == nil && (m.State != "started" || !m.Healthy || m.Operation != "") {
			err = fmt.Errorf("machine %s is %s (healthy %v, operation %q, on %s): %s", m.Name,
				m.State, m.Healthy, m.Operation, m.Worker, m.Reason)
		}
		return err
	})
	return m
}

// WaitDrain waits until a drain has ended, and fails the test if that takes longer than limit.
func (f *Fleet) WaitDrain(id string, limit time.Duration) api.Drain {
	f.t.Helper()
	var d api.Drain
	f.Eventually(limit, func() error {
		var err error
		d, err = f.Drain(f.t.Context(), id)
		if err == nil && !client.DrainEnded(d) {
			err = fmt.Errorf("drain is %s, %d of %d moved, blockers %+v", d.State, d.Moved,
				d.Total, d.Blockers)
		}
		return err
	})
	return d
}

// Eventually asks until there is no error; the last one fails the test after limit. Time counts as
// it does for the fleet's own deadlines: less on a host under pressure.
func (f *Fleet) Eventually(limit time.Duration, ask func() error) {
	f.t.Helper()
	var spent patience.Watch
	host, began := pressure.New(), time.Now()
	for {
		err := ask()
		if err == nil {
			return
		}
		r, _ := host.Read() // one that doesn't tell has none
		if spent.Look(time.Now(), "", patience.Share(r.CPU, r.Memory, r.IO)) >= limit {
			f.t.Fatalf("not within %s, which took %s on this host: %v", limit,
				time.Since(began).Round(time.Second), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Run runs a command in a machine and returns its output; a non-zero exit code fails the test.
func (f *Fleet) Run(ref string, cmd ...string) string {
	f.t.Helper()
	out, err := f.TryRun(f.t.Context(), ref, cmd...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// TryRun runs a command in a machine and returns its output; a non-zero exit code is an error.
func (f *Fleet) TryRun(ctx context.Context, ref string, cmd ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	code, err := f.RunExec(ctx, ref, client.Exec{Cmd: cmd, Stdout: &stdout, Stderr: &stderr})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return "", fmt.Errorf("%s in %s: %w: %s", strings.Join(cmd, " "), ref, err, stderr.String())
	}
	return stdout.String(), nil
}

// Ledger asks a machine's ledger for a number: acked, append or verify.
func (f *Fleet) Ledger(ctx context.Context, ref, what string) (uint64, error) {
	resp, err := f.Do(ctx, ref, client.PortRequest{Port: 8080, Path: "/" + what})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != 200 {
		return 0, fmt.Errorf("status %d: %s", resp.StatusCode, bytes.TrimSpace(body))
	}
	return strconv.ParseUint(strings.TrimSpace(string(body)), 10, 64)
}

// RestartServer kills the server and starts it with other arguments; an error if it doesn't start.
func (f *Fleet) RestartServer(args ...string) error {
	f.t.Helper()
	if err := f.KillServer(f.t.Context()); err != nil {
		return err
	}
	f.cfg.Args = args
	return f.Up(f.t.Context(), f.cfg, func(string) {})
}
