package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/ioflusher"
	"github.com/sluice-platform/sluice/internal/x/listen"
)

// workerConfig is what the worker's flags say.
type workerConfig struct {
	name, data, server        string
	joinToken                 string // file; "": the worker has its certificate
	metricsToken              string // file; "": only the server gets at metrics
	address, listen, underlay string
	tunnel                    tunnelFlags
	release, runtime          string
	cgroupParent              string
	cpus                      float64
	memory                    string
	pool                      int
	cacheMiB                  int64
	store                     storeLimits
	storeFrom                 string // whose credentials
	frontEnd                  string
	labels                    map[string]string
	otlp                      string // as the server's
	traced                    bool
	readyFile                 string
	debug                     bool
}

const workerRunHelp = `

With --name and the flags below it is the daemon of a worker itself: it joins the
fleet of --server by a join token (see sluice worker token create), for which it gets
a certificate that it renews by itself. It runs the machines that it is assigned, and
ends in order on INT and TERM. Its VMs go on without it, and the next daemon on the
same --data finds them again. It needs root. The server gives it the credentials of
the store, unless it has its own: see --store-credentials.`

// addWorkerDaemon makes the noun itself the daemon.
func addWorkerDaemon(d *deps, cmd *cobra.Command) {
	var cfg workerConfig
	cmd.Long += workerRunHelp
	cmd.Example = `  sluice worker --name w1 --data /var/lib/sluice/w1 --server https://[fd00::1]:7500 --join-token-file w1.join \
      --address fd00::11 --listen '[fd00::11]:7600' --release /usr/lib/sluice/release --cpus 8 --memory 16GiB`
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 || cmd.Flags().NFlag() == 0 {
			return needsSubcommand(cmd, args)
		}
		for flag, value := range map[string]string{"name": cfg.name, "data": cfg.data,
			"server": cfg.server, "address": cfg.address, "release": cfg.release} {
			if value == "" {
				return usageError("the worker daemon needs --%s", flag)
			}
		}
		level := slog.LevelInfo
		if cfg.debug {
			level = slog.LevelDebug
		}
		cfg.traced = d.tracingOn(cfg.otlp)
		return runWorker(cmd.Context(), cfg, d.logger(level))
	}
	f := cmd.Flags()
	f.StringVar(&cfg.name, "name", "", "name of the worker; unique in the fleet")
	f.StringVar(&cfg.data, "data", "", "directory of the worker's own; kept over restarts")
	f.StringVar(&cfg.server, "server", "", "URL of the server")
	f.StringVar(&cfg.joinToken, "join-token-file", "",
		"file with a join token; needed once, until the worker has a certificate in --data")
	f.StringVar(&cfg.metricsToken, "metrics-token-file", "", metricsTokenHelp)
	f.StringVar(&cfg.address, "address", "",
		"address at which other workers reach this host (IPv6)")
	f.StringVar(&cfg.listen, "listen", "",
		"address of the worker's API, for the server (default [ADDRESS]:7600)")
	f.StringVar(&cfg.underlay, "underlay", "",
		"network interface with that address (default: found)")
	cfg.tunnel.add(f)
	f.StringVar(&cfg.release, "release", "", "directory of the platform's release that new VMs get")
	f.StringVar(&cfg.runtime, "runtime", "sandbox", "what VMs are made of: sandbox or qemu")
	f.StringVar(&cfg.cgroupParent, "cgroup-parent", "", "cgroup of the VMs (default sluice-NAME)")
	f.Float64Var(&cfg.cpus, "cpus", 4, "cores for machines")
	f.StringVar(&cfg.memory, "memory", "4096", "memory for machines; a bare number is in MiB")
	f.IntVar(&cfg.pool, "pool", 2, "empty VMs to keep ready")
	f.Int64Var(&cfg.cacheMiB, "cache-mib", 1024, "disk cache of each VM, MiB")
	f.StringVar(&cfg.frontEnd, "guest-frontend", string(frontend.Auto),
		"how a VM's kernel gets its disk: auto (its NBD client where it has one, else FUSE), nbd (--runtime qemu only) or fuse")
	cfg.store.add(f)
	addStoreKeySource(f, &cfg.storeFrom)
	f.StringToStringVar(&cfg.labels, "label", nil, "label K=V of the worker; may be repeated")
	f.StringVar(&cfg.otlp, "otlp-endpoint", "", otlpHelp)
	f.StringVar(&cfg.readyFile, "ready-file", "",
		"file to write the URL of the worker's API into, as JSON, once it listens")
	f.BoolVar(&cfg.debug, "debug", false, "log more")
}

// runWorker wires a worker and runs it until ctx ends.
func runWorker(ctx context.Context, cfg workerConfig, log *slog.Logger) error {
	// Its gateway is on the way of every flush, and QEMU, which inherits it, holds a VM's cache.
	if err := ioflusher.Become(); err != nil {
		log.WarnContext(ctx,
			"under memory pressure, this worker may have to wait for its own machines' writes",
			"error", err)
	}
	wc, err := cfg.complete()
	if err != nil {
		return err
	}
	listener, err := listen.TCP(ctx, cfg.listen)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "listen on %s", cfg.listen).
			WithRemedy("choose an address of this host, and a free port")
	}
	defer listener.Close()
	wc.APIURL = "https://" + listener.Addr().String()
	held, link, err := cfg.connect(ctx, log)
	if err != nil {
		return err
	}
	defer link.Close()
	driver, err := openRuntime(cfg.runtime, filepath.Join(cfg.data, cfg.runtime),
		cfg.cgroupParent, log)
	if err != nil {
		return err
	}
	defer func() { _ = driver.Close() }() // VMs go on
	if err := driver.Probe(ctx); err != nil {
		return err
	}
	network, err := cfg.openNetwork(wc.Address, log)
	if err != nil {
		return err
	}
	defer func() { _ = network.Close() }()
	keys := cfg.storeKeys(link, log)
	wd := worker.Deps{Driver: driver, HostNet: network, Server: link, StoreKeys: keys,
		OpenStore: openStoreWith(keys), Listener: secured(listener, held),
		Identity: renewing{held, link}, Logger: log}
	w, err := cfg.newWorker(ctx, wc, &wd, log)
	if err != nil {
		return err
	}
	if err := writeReady(cfg.readyFile, []string{wc.APIURL}); err != nil {
		return err
	}
	log.InfoContext(ctx, "worker started", "worker_id", cfg.name, "url", wc.APIURL, "version",
		wc.Version, "release_id", string(wc.Release))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.Run(ctx) })
	g.Go(func() error { return wd.Traces.Run(ctx) })
	err = g.Wait()
	log.InfoContext(ctx, "worker stopped", "worker_id", cfg.name)
	return err
}

// openNetwork takes the host's network over.
func (cfg *workerConfig) openNetwork(address netip.Addr, log *slog.Logger) (*hostnet.Net,
	error) {
	rate, err := cfg.store.rate()
	if err != nil {
		return nil, err
	}
	return hostnet.New(hostnet.Config{Address: address, Underlay: cfg.underlay,
		Tunnel: cfg.tunnel.config(cfg.data), Rate: rate, Logger: log})
}

// newWorker returns a worker that is seen from outside.
func (cfg *workerConfig) newWorker(ctx context.Context, wc worker.Config, wd *worker.Deps,
	log *slog.Logger) (*worker.Worker, error) {
	reg := expose.NewRegistry("worker", buildVersion())
	wd.Metrics, wd.Exposition = metrics.New(reg), expose.Handler(reg, log)
	if cfg.traced {
		var err error
		wd.Traces, err = newTracer(ctx, "worker", cfg.name, cfg.otlp, reg, log)
		if err != nil {
			return nil, err
		}
	}
	w, err := worker.New(wc, *wd)
	if err == nil {
		expose.RegisterReady(reg, w.Lacks)
	}
	return w, err
}

// complete checks the flags and fills in what follows from others.
func (cfg *workerConfig) complete() (worker.Config, error) {
	var wc worker.Config
	if err := errors.Join(cfg.tunnel.check(), checkStoreKeySource(cfg.storeFrom)); err != nil {
		return wc, err
	}
	if cfg.runtime != "sandbox" && cfg.runtime != "qemu" {
		return wc, errs.New(errs.Unsupported, "there is no runtime %q in this build", cfg.runtime).
			WithRemedy("use --runtime sandbox or qemu")
	}
	if cfg.runtime == "qemu" {
		wc.BootTimeout = qemuBootTimeout
	}
	kind, err := frontend.ParseKind(cfg.frontEnd)
	if err != nil {
		return wc, err
	}
	if _, err := cfg.store.rate(); err != nil { // before anything is begun
		return wc, err
	}
	if kind == frontend.NBD && cfg.runtime != "qemu" {
		return wc, errs.New(errs.Unsupported,
			"VMs of runtime %s can't use this host's NBD client, which serves its initial network namespace only", cfg.runtime).
			WithRemedy("use --guest-frontend auto, or --runtime qemu")
	}
	address, err := cfg.reachable()
	if err != nil {
		return wc, err
	}
	memory, err := bytesize.Parse(cfg.memory, 1<<20)
	if err != nil {
		return wc, err
	}
	if wc.ScrapeToken, err = readOptionalToken(cfg.metricsToken); err != nil {
		return wc, err
	}
	release, err := findRelease(cfg.release)
	if err != nil {
		return wc, err
	}
	if cfg.listen == "" {
		cfg.listen = netip.AddrPortFrom(address, defaultWorkerPort).String()
	}
	if cfg.cgroupParent == "" {
		cfg.cgroupParent = "sluice-" + cfg.name
	}
	return worker.Config{
		BootTimeout: wc.BootTimeout, ScrapeToken: wc.ScrapeToken, Worker: fleet.WorkerID(cfg.name),
		DataDir: cfg.data, Address: address, Labels: cfg.labels,
		Version:  buildVersion(),
		Capacity: fleet.Resources{CPUMillis: int64(cfg.cpus * 1000), MemoryMiB: memory >> 20},
		Release:  fleet.ReleaseID(filepath.Base(release)), ReleaseDir: release, Pool: cfg.pool,
		CacheBytes: cfg.cacheMiB << 20, GatewayBytes: cfg.store.memoryMiB << 20,
		Limits:   cfg.store.limits(),
		FrontEnd: string(kind), TunnelKeyLife: cfg.tunnel.keyLife,
	}, nil
}

// reachable returns the address at which other workers reach this one.
func (cfg *workerConfig) reachable() (netip.Addr, error) {
	address, err := netip.ParseAddr(cfg.address)
	if err != nil || !address.Is6() || address.Is4In6() {
		return netip.Addr{}, errs.New(errs.Invalid, "address %q is no IPv6 address", cfg.address).
			WithRemedy("give one that other workers reach, like fd00::11")
	}
	if address.IsLoopback() {
		return netip.Addr{}, errs.New(errs.Invalid,
			"address %s is this host's loopback, to which no other worker can route", address).
			WithRemedy("give the address of this host's network, like fd00::11")
	}
	return address, nil
}

// findRelease returns the directory of a release itself, whose name is the release's.
func findRelease(path string) (string, error) {
	release, err := filepath.Abs(path)
	if err == nil {
		release, err = filepath.EvalSymlinks(release)
	}
	if err != nil {
		return "", errs.Wrap(errs.NotFound, err, "find the release %s", path).
			WithRemedy("build one: make build")
	}
	return release, nil
}

const defaultWorkerPort = 7600
