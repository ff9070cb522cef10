package etcdstate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	memberName = "sluice"
	// memberURL is the peer address of a member that has no peers: an identity, which nothing
	// listens on.
	memberURL = "http://127.0.0.1:1"

	// Each tick wakes an idle process, so there are few. Five ticks make an election, the least
	// that etcd takes: with nobody to vote against, waiting for other candidates only delays the
	// start. A member must not be told to lead sooner: until it has taken in what its log holds,
	// raft may look for entries there that etcd has compacted meanwhile, and panics.
	tickMs, electionMs = 200, 1000

	// batchInterval bounds how long commits wait to be written into the database. They are in the
	// log by then, which is what was acknowledged; the timer alone wakes an idle process.
	batchInterval = time.Second

	defaultQuotaBytes    = 4 << 30
	defaultKeepRevisions = 20_000

	remedyRestore = "restore the state from a snapshot into an empty directory"
)

// Config says where and how an embedded member runs.
type Config struct {
	// Dir is the data directory; it is made if it isn't there, readable by its owner alone.
	Dir string
	// ClientURL, if set, also serves etcd's API: http://127.0.0.1:PORT (0: any), http://[::1]:PORT
	// or unix:///path. Loopback only, because whoever reaches it has the whole state.
	ClientURL string
	// QuotaBytes bounds the database; 0 means 4 GiB.
	QuotaBytes int64
	// KeepRevisions is how far back a watch can resume, at least; 0 means 20,000.
	KeepRevisions int
	// Log receives etcd's warnings, at level debug; nil drops them.
	Log *slog.Logger
}

// Embedded is a running member in this process.
type Embedded struct {
	etcd  *embed.Etcd
	gave  *giveUp
	store *Store
	lock  *dirLock
	close func() error
}

// Start runs a member on cfg.Dir and returns when it takes requests. Error kinds: Conflict where
// another process has the directory, Corrupt where its contents can't be read, Invalid for a bad
// ClientURL, Unavailable when ctx ends first, or the directory's file system is full.
func Start(ctx context.Context, cfg Config) (*Embedded, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir == "" {
		return nil, errs.New(errs.Invalid, "no directory for the state")
	}
	gave := newGiveUp(cfg.Dir)
	ec, err := embedConfig(cfg, gave)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "make the state directory")
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	etcd, err := found(ctx, ec, gave)
	if full := errNoRoom(cfg.Dir, err); full != nil && errs.RemedyOf(err) == "" {
		err = full
	}
	if err != nil {
		// else a part of it holds the files for as long as the process lives
		if gave.reason() == nil {
			_ = lock.release() // the process may try again; the error that matters is err
		}
		return nil, err
	}
	e := &Embedded{etcd: etcd, gave: gave,
		store: newStore(v3client.New(etcd.Server), ""), lock: lock}
	e.close = sync.OnceValue(func() error {
		err := e.store.Close()
		if reason := gave.reason(); reason != nil {
			return reason // etcd never comes to an end
		}
		e.etcd.Close()
		if releaseErr := e.lock.release(); err == nil {
			err = releaseErr
		}
		return err
	})
	return e, nil
}

// found starts the member, and founds it first if it is a new one.
func found(ctx context.Context, ec *embed.Config, gave *giveUp) (*embed.Etcd, error) {
	if err := beginFounding(gave.dir); err != nil {
		return nil, err
	}
	etcd, err := startMember(ctx, ec, gave)
	if err != nil {
		return nil, err
	}
	if err := endFounding(gave.dir); err != nil {
		etcd.Close()
		return nil, err
	}
	return etcd, nil
}

func embedConfig(cfg Config, gave *giveUp) (*embed.Config, error) {
	peer, err := url.Parse(memberURL)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "parse the member's address")
	}
	ec := embed.NewConfig()
	ec.Name = memberName
	ec.Dir = memberDir(cfg.Dir)
	ec.InitialCluster = memberName + "=" + memberURL
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = nil, []url.URL{*peer}
	ec.ListenClientUrls, ec.AdvertiseClientUrls = nil, nil
	if cfg.ClientURL != "" {
		u, err := loopbackURL(cfg.ClientURL)
		if err != nil {
			return nil, err
		}
		ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	}
	ec.EnableGRPCGateway = false
	ec.TickMs, ec.ElectionMs = tickMs, electionMs
	ec.BackendBatchInterval = batchInterval
	ec.QuotaBackendBytes = defaultQuotaBytes
	if cfg.QuotaBytes != 0 {
		ec.QuotaBackendBytes = cfg.QuotaBytes
	}
	keep := defaultKeepRevisions
	if cfg.KeepRevisions != 0 {
		keep = cfg.KeepRevisions
	}
	ec.AutoCompactionMode, ec.AutoCompactionRetention = embed.CompactorModeRevision,
		strconv.Itoa(keep)
	log := newZapLogger(cfg.Log).WithOptions(zap.WithFatalHook(gave), zap.WithPanicHook(gave))
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return ec, nil
}

// memberDir is apart from the lock, so that a restore can put a whole directory in its place.
func memberDir(dir string) string { return filepath.Join(dir, "etcd") }

func loopbackURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "client address of the state")
	}
	switch u.Scheme {
	case "unix":
		return u, nil
	case "http":
		if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() && u.Port() != "" {
			return u, nil
		}
	}
	return nil, errs.New(errs.Invalid, "the state can't be served at %q", raw).
		WithRemedy("use http://127.0.0.1:PORT or unix:///path; there is no authentication on it")
}

// startMember starts a member, and returns when it takes requests or has failed, whichever of its
// goroutines says so.
func startMember(ctx context.Context, ec *embed.Config, gave *giveUp) (*embed.Etcd, error) {
	var etcd *embed.Etcd
	var err error
	var start errgroup.Group
	started := make(chan struct{})
	start.Go(func() error {
		defer close(started)
		etcd, err = startHere(ec)
		return nil
	})
	select {
	case <-started:
	case <-gave.done: // then the start may never end
		return nil, gave.reason()
	}
	if err != nil {
		return nil, err
	}
	if err := awaitReady(ctx, ec, etcd, gave); err != nil {
		if gave.reason() == nil {
			etcd.Close()
		}
		return nil, err
	}
	return etcd, nil
}

// startHere turns etcd's ways of giving up, panics and exits included, into errors.
func startHere(ec *embed.Config) (etcd *embed.Etcd, err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		etcd = nil
		if failed, ok := r.(*etcdError); ok {
			err = errNoRoom(filepath.Dir(ec.Dir), failed)
		}
		if err == nil {
			err = errs.New(errs.Corrupt, "start etcd on %s: %s", ec.Dir, fmt.Sprint(r)).
				WithRemedy(remedyRestore)
		}
	}()
	if etcd, err = embed.StartEtcd(ec); err != nil {
		return nil, errStart(ec, err)
	}
	return etcd, nil
}

// awaitReady returns once the member takes requests.
func awaitReady(ctx context.Context, ec *embed.Config, etcd *embed.Etcd, gave *giveUp) error {
	select {
	case <-gave.done:
		return gave.reason()
	case <-etcd.Server.ReadyNotify():
		return nil
	case err := <-etcd.Err():
		return errStart(ec, err)
	case <-etcd.Server.StopNotify():
		return errs.New(errs.Unavailable, "etcd on %s stopped while starting", ec.Dir)
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "start etcd on %s", ec.Dir)
	}
}

func errStart(ec *embed.Config, err error) error {
	if errors.Is(err, walpb.ErrCRCMismatch) || errors.Is(err, wal.ErrCRCMismatch) {
		return errs.Wrap(errs.Corrupt, err, "start etcd on %s", ec.Dir).WithRemedy(remedyRestore)
	}
	return errs.Wrap(errs.Unavailable, err, "start etcd on %s", ec.Dir)
}

// Store returns the state. It is closed with e.
func (e *Embedded) Store() *Store { return e.store }

// Endpoint returns the address that serves etcd's API, or "" where none does.
func (e *Embedded) Endpoint() string {
	if len(e.etcd.Clients) == 0 {
		return ""
	}
	addr := e.etcd.Clients[0].Addr()
	if addr.Network() == "unix" {
		return "unix://" + addr.String()
	}
	return "http://" + addr.String()
}

// Wait returns why the member has stopped by itself, and nil once ctx ends. A process in which etcd
// has given up has to end: parts of it are held, and so is the directory. Unavailable, with its
// remedy, if the directory's file system was full.
func (e *Embedded) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.gave.done:
		return e.gave.reason()
	case <-e.etcd.Server.StopNotify():
		return errs.New(errs.Unavailable, "the embedded etcd ended")
	}
}

// Close ends every call of the store, stops the member and frees the directory. It may be called
// twice. After etcd has given up, it returns why, and leaves the rest to the end of the process.
func (e *Embedded) Close() error { return e.close() }
