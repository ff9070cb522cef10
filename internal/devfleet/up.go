package devfleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config says what fleet to bring up.
type Config struct {
	Dir     string
	Workers int
	// a store URL; "" for a directory in Dir; "s3" for an S3 server of the fleet's own
	Store     string
	S3Server  string   // versitygw binary, for Store "s3"
	Binary    string   // sluice
	Release   string   // directory of an unpacked release
	Runtime   string   // sandbox, qemu, or mixed: sandbox and qemu by turns
	FrontEnd  string   // of the VMs of qemu workers: auto, nbd or fuse; "" for auto
	Pool      int      // empty VMs kept ready per worker
	CPUs      int      // cores that each worker claims to have
	MemoryMiB int      // memory that each worker claims to have
	CacheMiB  int      // disk cache of each VM
	Args      []string // more arguments of the server
	// WorkerArgs are more arguments of each worker.
	WorkerArgs []string
	OTLP       string // collector that the server and the workers send traces to; "" for none
}

// Fleet is a fleet on this machine.
type Fleet struct {
	Layout
	log *slog.Logger
}

// Open returns the fleet in dir, whether it is up or not.
func Open(dir string, log *slog.Logger) (*Fleet, error) {
	l, err := NewLayout(dir)
	if err != nil {
		return nil, err
	}
	return &Fleet{Layout: l, log: log}, nil
}

// Up starts the fleet, or those parts of it that don't run. It calls progress after each part.
func (f *Fleet) Up(ctx context.Context, cfg Config, progress func(string)) error {
	if err := checkConfig(cfg); err != nil {
		return err
	}
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := f.load()
	if errs.Is(err, errs.NotFound) {
		s, err = f.found(cfg)
	}
	if err != nil {
		return err
	}
	if len(s.Workers) != cfg.Workers {
		return errs.New(errs.Conflict, "the fleet in %s has %d workers, not %d", f.Dir,
			len(s.Workers), cfg.Workers).
			WithRemedy("ask for %d, or remove it first: sluice dev down --dir %s",
				len(s.Workers), f.Dir)
	}
	s.Binary, s.Release, s.OTLP = cfg.Binary, cfg.Release, cfg.OTLP
	s.Args, s.WorkerArgs = cfg.Args, cfg.WorkerArgs
	if err := f.ensureBridge(); err != nil {
		return err
	}
	if cfg.Store == "s3" {
		if err := f.ensureS3(ctx, cfg, s); err != nil {
			return err
		}
		progress("S3 server " + s.StoreURL)
	}
	if err := f.ensureServer(ctx, s); err != nil {
		return err
	}
	progress("server " + s.ServerURL)
	return f.ensureWorkers(ctx, s, progress)
}

func checkConfig(cfg Config) error {
	if cfg.Workers < 1 || cfg.Workers > 64 {
		return errs.New(errs.Invalid, "%d workers asked for", cfg.Workers).
			WithRemedy("ask for 1 to 64")
	}
	if !slices.Contains(append(runtimes(), mixedRuntimes), cfg.Runtime) {
		return errs.New(errs.Invalid, "there is no runtime %q", cfg.Runtime).
			WithRemedy("use sandbox, qemu or mixed")
	}
	if os.Geteuid() != 0 {
		return errs.New(errs.Denied,
			"a fleet on this machine needs root: it makes network namespaces and mounts").
			WithRemedy("run it as root")
	}
	if _, err := os.Stat(filepath.Join(cfg.Release, "usr/bin/sluice-init")); err != nil {
		return errs.Wrap(errs.NotFound, err, "no release of the platform in %q", cfg.Release).
			WithRemedy("build it: make build")
	}
	return nil
}

// found makes the directory and records the fleet, before any other part of it exists.
func (f *Fleet) found(cfg Config) (*State, error) {
	for _, dir := range []string{f.Dir, f.serverDir(), f.storeDir(), f.path("log")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("create fleet: %w", err)
		}
	}
	for _, file := range []string{f.operatorToken(), f.fleetKey()} {
		if err := ensureToken(file); err != nil {
			return nil, err
		}
	}
	s := &State{ID: f.ID, StoreURL: cfg.Store, Runtime: cfg.Runtime, FrontEnd: cfg.FrontEnd,
		Pool: cfg.Pool, CPUs: cfg.CPUs,
		MemoryMiB: cfg.MemoryMiB, CacheMiB: cfg.CacheMiB}
	if cfg.Store == "" {
		s.StoreURL = "file://" + f.storeDir()
	}
	for i := 1; i <= cfg.Workers; i++ {
		s.Workers = append(s.Workers, Host{Name: f.WorkerName(i), Index: i,
			Address: f.WorkerAddress(i).String(), Runtime: runtimeOf(cfg.Runtime, i)})
	}
	return s, f.save(s)
}

// mixedRuntimes makes a fleet with workers of both runtimes.
const mixedRuntimes = "mixed"

// runtimeOf is the runtime of the i-th worker, from 1.
func runtimeOf(runtime string, i int) string {
	if runtime != mixedRuntimes {
		return runtime
	}
	return runtimes()[(i-1)%2]
}

func ensureToken(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	var b [32]byte // a fleet's key has as many
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("make token: %w", err)
	}
	return atomicfile.Write(file, []byte(hex.EncodeToString(b[:])+"\n"), 0o600)
}

func (f *Fleet) ensureServer(ctx context.Context, s *State) error {
	if s.Server.Alive() {
		return nil
	}
	ready := f.path("server", "ready.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start server: %w", err)
	}
	local := "127.0.0.1:0"
	if s.ServerURL != "" { // the same address after a restart
		local = s.ServerHost()
	}
	bridge := fmt.Sprintf("[%s]:7500", f.ServerAddress())
	args := []string{s.Binary, "server", "--data", f.serverDir(), "--listen", local,
		"--listen", bridge,
		"--store", s.StoreURL, "--fleet-id", f.FleetID(), "--operator-token-file",
		f.operatorToken(), "--ready-file", ready}
	if _, err := os.Stat(f.fleetKey()); err == nil { // fleets of earlier releases have none
		args = append(args, "--fleet-key-file", f.fleetKey())
	}
	if s.OTLP != "" {
		args = append(args, "--otlp-endpoint", s.OTLP)
	}
	key, err := f.storeKeyArgs(s)
	if err != nil {
		return err
	}
	args = append(append(args, key...), s.Args...)
	p, err := command{args: args, log: f.logFile("server")}.start()
	if err != nil {
		return err
	}
	s.Server = p
	if err := f.save(s); err != nil {
		return err
	}
	var urls []string
	if err := f.waitReady(ctx, "server", p, ready, &urls); err != nil {
		return err
	}
	if len(urls) != 2 {
		return errs.New(errs.Internal, "the server serves on %v instead of two addresses", urls)
	}
	s.ServerURL, s.BridgeURL = urls[0], urls[1]
	if err := f.save(s); err != nil {
		return err
	}
	if err := f.showAuthority(); err != nil {
		return err
	}
	return f.writeFleetFile(s.ServerURL)
}

// writeFleetFile writes the file with the fleet's URL and the operators' token, for clients.
func (f *Fleet) writeFleetFile(url string) error {
	token, err := os.ReadFile(f.operatorToken())
	if err != nil {
		return fmt.Errorf("read operator token: %w", err)
	}
	first := "" // of the tokens in it, one a line
	for line := range strings.Lines(string(token)) {
		if line = strings.TrimSpace(line); first == "" && !strings.HasPrefix(line, "#") {
			first = line
		}
	}
	data, err := json.Marshal(map[string]string{"url": url, "token": first})
	if err != nil {
		return fmt.Errorf("encode fleet file: %w", err)
	}
	return atomicfile.Write(f.fleetFile(), append(data, '\n'), 0o600)
}

func (f *Fleet) ensureWorkers(ctx context.Context, s *State, progress func(string)) error {
	for i := range s.Workers {
		if err := f.launchWorker(ctx, s, &s.Workers[i]); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range s.Workers {
		g.Go(func() error {
			return f.waitReady(ctx, "worker "+h.Name, h.Process,
				filepath.Join(f.workerDir(h.Name), "ready.json"), nil)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, h := range s.Workers {
		progress(fmt.Sprintf("worker %s %s", h.Name, h.Address))
	}
	return nil
}

func (f *Fleet) launchWorker(ctx context.Context, s *State, h *Host) error {
	if h.Process.Alive() {
		return nil
	}
	if err := f.ensureHost(h.Name, f.WorkerAddress(h.Index)); err != nil {
		return err
	}
	dir := f.workerDir(h.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory of worker %s: %w", h.Name, err)
	}
	ready := filepath.Join(dir, "ready.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start worker %s: %w", h.Name, err)
	}
	args := []string{s.Binary, "worker", "--name", h.Name, "--data", dir, "--server", s.BridgeURL,
		"--address", h.Address, "--listen",
		fmt.Sprintf("[%s]:7600", h.Address),
		"--release", s.Release, "--cpus", fmt.Sprint(s.CPUs), "--memory", fmt.Sprint(s.MemoryMiB),
		"--pool", fmt.Sprint(s.Pool), "--runtime", h.Runtime, "--cache-mib", fmt.Sprint(s.CacheMiB),
		"--cgroup-parent", f.CgroupParent(h.Name), "--ready-file", ready}
	token, err := f.joinToken(ctx, h.Name)
	if err != nil {
		return err
	}
	if token != "" {
		args = append(args, "--join-token-file", token)
	}
	if h.Runtime == "qemu" && s.FrontEnd != "" {
		args = append(args, "--guest-frontend", s.FrontEnd)
	}
	if s.OTLP != "" {
		args = append(args, "--otlp-endpoint", s.OTLP)
	}
	args = append(args, s.WorkerArgs...)
	p, err := command{args: args, apart: storeKeyVariables, log: f.logFile(h.Name),
		netns: f.Netns(h.Name)}.start()
	if err != nil {
		return err
	}
	h.Process = p
	return f.save(s)
}

// waitReady waits until a daemon has written its ready file, and decodes it into v unless that is
// nil.
func (f *Fleet) waitReady(ctx context.Context, what string, p Process, file string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, onhost.Patient(time.Minute))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(file)
		if err == nil {
			if v == nil {
				return nil
			}
			return json.Unmarshal(data, v)
		}
		reapIfChild(p.PID)
		if !p.Alive() {
			return f.endedError(what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "%s does not get ready", what).
				WithRemedy("read its log in %s", f.path("log"))
		}
	}
}

// endedError returns why a daemon ended while it started, with the end of its log.
func (f *Fleet) endedError(what string) error {
	name := what[strings.LastIndexByte(what, ' ')+1:]
	data, err := os.ReadFile(f.logFile(name))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "%s ended while starting", what)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	why, remedy := lines[len(lines)-1], "read its log: "+f.logFile(name)
	for _, line := range lines[max(0, len(lines)-5):] {
		if said, ok := strings.CutPrefix(line, "error: "); ok {
			why = said
		}
		if said, ok := strings.CutPrefix(line, "try:"); ok {
			remedy = strings.TrimSpace(said)
		}
	}
	return errs.New(errs.Unavailable, "%s ended while starting: %s", what, why).
		WithRemedy("%s", remedy)
}

// lock keeps a second command from working on the fleet at the same time.
func (f *Fleet) lock() (func(), error) {
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("create fleet directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(filepath.Dir(f.Dir), "."+filepath.Base(f.Dir)+".lock"),
		os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock fleet: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, errs.Wrap(errs.Conflict, err,
			"another command is working on the fleet in %s", f.Dir).
			WithRemedy("wait until it has ended")
	}
	return func() { file.Close() }, nil
}
