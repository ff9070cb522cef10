package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/control/pooldisks"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/storekeys"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/listen"
)

// serverFlags is the server's configuration.
type serverFlags struct {
	data, store, fleetID string
	listen               []string
	operatorToken        string // file
	identity             identityFlags
	metricsToken         string // file; "": only operators get at metrics
	otlp                 string // URL of a collector; "": that of the environment, or none
	readyFile            string
	builds               string // directory; "": that of the state
	keys                 seal.Sources
	storeKeys            storekeys.Config
	people               peopleFlags
	perToken             httpapi.TokenBounds
	withoutKeys          bool
	policy               fleet.Policy
	collectEvery, grace  time.Duration
	verbose              bool
}

// minSuspect leaves room for a report, which comes once a second, that is late.
const minSuspect = 1500 * time.Millisecond

func newServerCommand(d *deps) *cobra.Command {
	f := serverFlags{policy: fleet.DefaultPolicy()}
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane, with its own etcd",
		Long: `Run the control plane: the API, the planner and the executor, over an etcd of its
own in --data, and the fleet's certificates. Machines and workers go on without it;
restarted, it goes on with what was half done. A second server on the same data
directory is refused.
` + exitTable,
		Example: `  sluice server --data /var/lib/sluice/server --listen 127.0.0.1:7500 --store s3://bucket/fleet \
    --fleet-id prod --operator-token-file operator.token`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return d.runServer(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "directory of the server's state")
	flags.StringVar(&f.builds, "builds", "",
		"directory in which images are unpacked, best on a file system of its own (default that of --data)")
	flags.StringArrayVar(&f.listen, "listen", []string{"127.0.0.1:7500"},
		"address to serve on; repeat it for more")
	flags.StringVar(&f.store, "store", "",
		"URL of the pool of disks: s3://bucket/prefix or file:///directory")
	addStoreFlags(flags, &f.storeKeys)
	flags.StringVar(&f.fleetID, "fleet-id", "sluice", "the fleet's name in its own records")
	flags.StringVar(&f.operatorToken, "operator-token-file", "",
		"file with the tokens of operators, one a line; read again when it changes")
	f.identity.add(flags)
	f.people.add(flags)
	flags.StringVar(&f.metricsToken, "metrics-token-file", "", metricsTokenHelp)
	f.addKeyFlags(flags)
	addTokenBounds(flags, &f.perToken)
	flags.StringVar(&f.otlp, "otlp-endpoint", "", otlpHelp)
	flags.StringVar(&f.readyFile, "ready-file", "",
		"file to write the served URLs to, once they are served")
	flags.IntVar(&f.policy.MovesPerNetwork, "moves-per-network", f.policy.MovesPerNetwork,
		"machines of one network that may move at a time")
	flags.IntVar(&f.policy.MovesOut, "moves-out", f.policy.MovesOut,
		"moves away from one worker at a time")
	flags.IntVar(&f.policy.MovesIn, "moves-in", f.policy.MovesIn, "moves to one worker at a time")
	flags.IntVar(&f.policy.MovesFleet, "moves-fleet", f.policy.MovesFleet,
		"moves in the whole fleet at a time")
	flags.DurationVar(&f.policy.WorkerSuspect, "worker-suspect", f.policy.WorkerSuspect,
		"silence after which a worker gets no new machines")
	flags.DurationVar(&f.policy.WorkerDown, "worker-down", f.policy.WorkerDown,
		"silence after which a worker's machines are started elsewhere")
	flags.DurationVar(&f.policy.StartTimeout, "start-timeout", f.policy.StartTimeout,
		"time for which a start may come no further, before it is given up; counts less on a host under pressure")
	flags.DurationVar(&f.collectEvery, "collect-every", time.Hour,
		"how often the pool is looked through for what no disk needs any more; 0: never")
	flags.DurationVar(&f.grace, "collect-grace", gc.DefaultGrace,
		"time from finding something unreachable to deleting it, at least 10m")
	flags.BoolVar(&f.verbose, "verbose", false, "log more")
	return cmd
}

func (f *serverFlags) check() error {
	for name, value := range map[string]string{"--data": f.data, "--store": f.store,
		"--operator-token-file": f.operatorToken} {
		if value == "" {
			return usageError("sluice server needs %s", name)
		}
	}
	if err := cmp.Or(f.identity.check(), f.people.check()); err != nil {
		return err
	}
	if f.perToken.Calls < 0 || f.perToken.Open < 0 {
		return usageError("--token-calls %g and --token-open %d: use 0 or more", f.perToken.Calls,
			f.perToken.Open)
	}
	if f.policy.WorkerSuspect < minSuspect {
		return usageError("--worker-suspect %s is shorter than %s: workers report once a second",
			f.policy.WorkerSuspect, minSuspect)
	}
	if f.collectEvery < 0 || f.grace < gc.MinGrace {
		return usageError(
			"--collect-every %s and --collect-grace %s: use 0 or more, and %s or more",
			f.collectEvery, f.grace, gc.MinGrace)
	}
	if f.policy.WorkerDown < f.policy.WorkerSuspect {
		return usageError("--worker-down %s is shorter than --worker-suspect %s",
			f.policy.WorkerDown, f.policy.WorkerSuspect)
	}
	return nil
}

// tokens is the API's config, with the tokens that the files have.
func (f *serverFlags) tokens() (cfg httpapi.Config, err error) {
	cfg.Version, cfg.PerToken = buildVersion(), f.perToken
	if cfg.OperatorToken, err = readToken(f.operatorToken); err != nil {
		return cfg, err
	}
	cfg.ScrapeToken, err = readOptionalToken(f.metricsToken)
	return cfg, err
}

// secrets returns the API's config, and the fleet's keys, nil if there are none.
func (f *serverFlags) secrets(ctx context.Context) (httpapi.Config, *seal.Keyring, error) {
	tokens, err := f.tokens()
	if err != nil {
		return tokens, nil, err
	}
	keys, err := f.keys.Load(ctx)
	return tokens, keys, err
}

// runServer runs until ctx ends, or a part of it fails.
func (d *deps) runServer(ctx context.Context, f serverFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	log := d.logger(levelOf(f.verbose))
	tokens, keys, err := f.secrets(ctx)
	if err != nil {
		return err
	}
	store, keysOfStore, err := f.openStore(ctx, log)
	if err != nil {
		return err
	}
	defer store.Close()
	etcd, err := etcdstate.Start(ctx, etcdstate.Config{Dir: filepath.Join(f.data, "etcd"),
		Log: log.With("component", "etcd")})
	if err != nil {
		return err
	}
	defer etcd.Close()
	// Its directory is this process's own from here on.
	authority, err := f.identity.open(f.data, f.fleetID)
	if err != nil {
		return err
	}
	seen, err := d.newServerSight(ctx, etcd, f.otlp, log)
	if err != nil {
		return err
	}
	pool, err := f.claimPool(ctx, store)
	if err != nil {
		return err
	}
	c, err := f.newControl(ctx, seen, control.Deps{Keys: keys, Disks: pool, Images: pool,
		Authority: issuer{authority},
		Garbage:   pooldisks.NewGarbage(store, f.grace, log),
		Log:       log.With("component", "control")})
	if err != nil {
		return err
	}
	audited, err := f.openAudit(store, seen, log)
	if err != nil {
		return err
	}
	deps := depsOfAPI(c, audited, keysOfStore, seen, log)
	served, err := f.newAPI(ctx, tokens, deps, authority, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return seen.traces.Run(ctx) })
	g.Go(func() error { return keysOfStore.Run(ctx) })
	f.serveAPI(ctx, g, served, audited, log)
	g.Go(func() error { return followAuthority(ctx, authority, c.AuthorityChanged, log) })
	g.Go(func() error { return etcd.Wait(ctx) }) // without state there is nothing to serve
	g.Go(func() error { return warnOfFullDisk(ctx, f.data, log) })
	g.Go(func() error { return whenReady(ctx, f.readyFile, c, served.at, log) })
	return g.Wait()
}

// claimPool returns the fleet's pool of disks.
func (f *serverFlags) claimPool(ctx context.Context, store blob.Store) (*pooldisks.Pool, error) {
	builds, maker, err := f.imageBuilds()
	if err != nil {
		return nil, err
	}
	pool := pooldisks.New(store, f.store, builds, maker)
	return pool, pool.Claim(ctx, f.fleetID)
}

// serving is the API, where it is to be served, and who knows people; nil if nobody does.
type serving struct {
	api    *httpapi.API
	at     []served
	people *signin.People
}

// newAPI returns the API and what it needs to be served.
func (f *serverFlags) newAPI(ctx context.Context, cfg httpapi.Config, deps httpapi.Deps,
	authority *identity.Authority, log *slog.Logger) (s serving, err error) {
	if s.people, err = f.people.open(log.With("component", "signin")); err != nil {
		return s, err
	}
	if s.people != nil {
		deps.People = s.people
	}
	plain, err := listenAll(ctx, f.listen)
	if err != nil {
		return s, err
	}
	listeners, self := f.identity.secure(plain, authority)
	useIdentity(&deps, authority, self)
	s.at = listeners
	s.api, err = httpapi.New(cfg, deps)
	return s, err
}

// newControl returns the control plane, seen from outside, with the state read.
func (f *serverFlags) newControl(ctx context.Context, seen serverSight,
	deps control.Deps) (*control.Control, error) {
	deps.Store, deps.MoveEnded = seen.state, seen.moveEnded
	c, err := control.New(control.Config{FleetID: f.fleetID, StoreURL: f.store, Policy: f.policy,
		CollectEvery: f.collectEvery, Trace: seen.traces != nil}, deps)
	if err != nil {
		return nil, err
	}
	if err := seen.watch(c); err != nil {
		return nil, err
	}
	return c, f.openSealed(ctx, c, deps.Log)
}

// depsOfAPI returns what the API calls.
func depsOfAPI(c *control.Control, audited *audit.Log, keys *storekeys.Source, seen serverSight,
	log *slog.Logger) httpapi.Deps {
	deps := httpapi.DepsOf(c, log.With("component", "api"))
	deps.Audit, deps.StoreKeys = audited, keys
	deps.Lacks = func(ctx context.Context) []string {
		return append(c.Lacks(ctx), audited.Lacks()...)
	}
	deps.Exposition, deps.Requests = seen.ofAPI(log)
	return deps
}

// emptyDir makes a directory, and removes what an earlier process left in it.
func emptyDir(dir string) (string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove half-built images: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory for image builds: %w", err)
	}
	return dir, nil
}

// whenReady says where the API is served, once the control plane has read its state.
func whenReady(ctx context.Context, file string, c *control.Control, listeners []served,
	log *slog.Logger) error {
	for {
		if _, err := c.Workers(ctx); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Millisecond):
		}
	}
	var urls []string
	for _, l := range listeners {
		urls = append(urls, l.url)
	}
	log.InfoContext(ctx, "server is ready", "urls", urls)
	return writeReady(file, urls)
}

func bare(listeners []served) []net.Listener {
	var out []net.Listener
	for _, l := range listeners {
		out = append(out, l.Listener)
	}
	return out
}

// writeReady writes the URLs that are served into file, whole or not at all.
func writeReady(file string, urls []string) error {
	if file == "" {
		return nil
	}
	data, err := json.Marshal(urls)
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	return atomicfile.Write(file, append(data, '\n'), 0o644)
}

func listenAll(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range addresses {
		l, err := listen.TCP(ctx, address)
		if err != nil {
			for _, open := range listeners {
				open.Close()
			}
			return nil, errs.Wrap(errs.Conflict, err, "listen on %s", address).
				WithRemedy("stop what listens there, or choose another --listen")
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func readToken(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", errs.Wrap(errs.NotFound, err,
			"read token").WithRemedy("write a random token of at least 16 characters into %s", file)
	}
	return strings.TrimSpace(string(data)), nil
}

// withoutQuery is a store's URL without its parameters, for people.
func withoutQuery(url string) string {
	base, _, _ := strings.Cut(url, "?")
	return base
}

func levelOf(verbose bool) slog.Level {
	if verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
