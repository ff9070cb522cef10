package main

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/worker/serverlink"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// workerFlags is a worker's configuration.
type workerFlags struct {
	name, data, server, token   string
	address, listen             string
	release, runtime, readyFile string
	cgroupParent                string
	cpus                        float64
	memoryMiB, cacheMiB         int64
	pool                        int
	labels                      map[string]string
	verbose                     bool
}

// addWorkerDaemon makes `sluice worker` without a verb run the daemon.
func (d *deps) addWorkerDaemon(cmd *cobra.Command) {
	var f workerFlags
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "run the worker's daemon on this host, under this name")
	flags.StringVar(&f.data, "data", "", "directory of the worker's VMs and memory")
	flags.StringVar(&f.server, "server", "", "URL of the server")
	flags.StringVar(&f.token, "token-file", "", "file with the token of workers")
	flags.StringVar(&f.address, "address", "", "address of this host, to which other workers route")
	flags.StringVar(&f.listen, "listen", "", "address of the worker's API, for the server")
	flags.StringVar(&f.release, "release", "", "directory of a release of the platform; its name is its id")
	flags.StringVar(&f.runtime, "runtime", "sandbox", "what VMs are made of: sandbox")
	flags.Float64Var(&f.cpus, "cpus", 0, "cores for machines")
	flags.Int64Var(&f.memoryMiB, "memory", 0, "memory for machines, MiB")
	flags.Int64Var(&f.cacheMiB, "cache-mib", 1024, "disk cache of each VM, MiB, sparse")
	flags.IntVar(&f.pool, "pool", 2, "empty VMs kept ready")
	flags.StringVar(&f.cgroupParent, "cgroup-parent", "sluice", "cgroup of the VMs")
	flags.StringToStringVar(&f.labels, "label", nil, "KEY=VALUE that operators select workers by; repeat it")
	flags.StringVar(&f.readyFile, "ready-file", "", "file to write once the worker is at work")
	flags.BoolVar(&f.verbose, "verbose", false, "log more")
	verb := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.name == "" || len(args) > 0 {
			return verb(cmd, args)
		}
		return d.runWorker(cmd.Context(), f)
	}
}

func (f *workerFlags) config() (worker.Config, error) {
	address, err := netip.ParseAddr(f.address)
	if err != nil {
		return worker.Config{}, usageError("--address %q is no IP address", f.address)
	}
	if f.runtime != "sandbox" {
		return worker.Config{}, errs.New(errs.Unsupported, "runtime %q is not there", f.runtime).WithRemedy("use --runtime sandbox")
	}
	token, err := readToken(f.token)
	if err != nil {
		return worker.Config{}, err
	}
	release, err := filepath.EvalSymlinks(f.release)
	if err != nil {
		return worker.Config{}, errs.Wrap(errs.NotFound, err, "find the release").WithRemedy("build one: make build")
	}
	return worker.Config{
		Worker: fleet.WorkerID(f.name), DataDir: f.data, Address: address, APIURL: "http://" + f.listen, Token: token,
		Capacity: fleet.Resources{CPUMillis: int64(f.cpus * 1000), MemoryMiB: f.memoryMiB}, Labels: f.labels,
		Version: version, Release: fleet.ReleaseID(filepath.Base(release)), ReleaseDir: release,
		Pool: f.pool, CacheBytes: f.cacheMiB << 20,
	}, nil
}

// runWorker runs until ctx ends. Its VMs go on after it.
func (d *deps) runWorker(ctx context.Context, f workerFlags) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	log := d.logger(levelOf(f.verbose)).With("worker_id", f.name)
	link, err := serverlink.New(f.server, cfg.Token)
	if err != nil {
		return err
	}
	defer link.Close()
	driver, err := sandbox.New(sandbox.Config{Dir: filepath.Join(f.data, "vms"), CgroupParent: f.cgroupParent, Logger: log})
	if err != nil {
		return err
	}
	defer driver.Close()
	if err := driver.Probe(ctx); err != nil {
		return err
	}
	net, err := hostnet.New(hostnet.Config{Address: cfg.Address, Logger: log})
	if err != nil {
		return err
	}
	defer net.Close()
	listeners, err := listenAll(ctx, []string{f.listen})
	if err != nil {
		return err
	}
	w, err := worker.New(cfg, worker.Deps{Driver: driver, HostNet: net, Server: link, OpenStore: openProbed,
		Listener: listeners[0], Logger: log})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.Run(ctx) })
	g.Go(func() error { return writeReadyFile(f.readyFile, []string{cfg.APIURL}) })
	return g.Wait()
}

// openProbed opens the fleet's store, and refuses one that ignores conditions.
func openProbed(ctx context.Context, url string) (blob.Store, error) {
	store, err := blobs.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := blobs.Probe(ctx, store, withoutQuery(url)); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}
