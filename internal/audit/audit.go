package audit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config of a Log. Zero values mean the defaults.
type Config struct {
	Dir   string // of the spool
	Fleet string // id of the fleet
	// SpoolBytes bounds what waits for the store; default 256 MiB. Beyond it Begin refuses.
	SpoolBytes int64
	// BatchBytes and BatchEvery: an object is written when that much, or for that long, has been
	// waiting; default 256 KiB and 1 s.
	BatchBytes int64
	BatchEvery time.Duration
}

// Deps are what a Log stands on.
type Deps struct {
	Store blob.Store  // of the pool
	State state.Store // keeps the newest hash
	Log   *slog.Logger
}

// Log is the audit log of a fleet. Safe for concurrent use.
type Log struct {
	cfg   Config
	log   *slog.Logger
	chain chain

	mu      sync.Mutex
	waiting []request // for the writer
	done    bool      // the writer has ended
	status  Status
	wake    chan struct{} // the writer has something to do
	full    chan struct{} // a segment has ended
	spool   *spool        // the writer's alone
}

// request is something for the writer to do, and where it says how that went.
type request struct {
	line   line
	do     func(*spool) error // in place of a line
	answer chan error
}

// Status is how the log is.
type Status struct {
	SpoolBytes int64     // waiting on the server's disk
	SpoolLimit int64     //
	Since      time.Time // the store takes nothing; zero: it does
	Why        string    // it doesn't
	Entries    int64     // recorded since the start
	Refused    int64     // calls, because the spool was full
	Broken     string    // the spool can't be written
}

// Open opens the log. What an earlier process has left in the spool is gone on with.
func Open(cfg Config, deps Deps) (*Log, error) {
	if cfg.SpoolBytes == 0 {
		cfg.SpoolBytes = 256 << 20
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = 256 << 10
	}
	if cfg.BatchEvery == 0 {
		cfg.BatchEvery = time.Second
	}
	s, err := openSpool(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Log{cfg: cfg, log: deps.Log, spool: s, wake: make(chan struct{}, 1),
		full:   make(chan struct{}, 1),
		status: Status{SpoolLimit: cfg.SpoolBytes, SpoolBytes: s.total()},
		chain:  chain{store: deps.Store, state: deps.State, fleet: cfg.Fleet}}, nil
}

// Run writes what is recorded until ctx ends. What the store hasn't taken by then stays in the
// spool.
func (l *Log) Run(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	// The writer ends last: it answers those who ship.
	writer, stop := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return l.write(writer) })
	group.Go(func() error {
		defer stop()
		return l.ship(groupCtx)
	})
	return group.Wait()
}

// Begin records that a call begins, and returns once that is durable. Unavailable: it can't be, and
// the call must not be made.
func (l *Log) Begin(e Entry) error {
	l.mu.Lock()
	if l.status.SpoolBytes >= l.cfg.SpoolBytes {
		l.status.Refused++
		since, why := l.status.Since, l.status.Why
		l.mu.Unlock()
		if why == "" {
			why = "it takes them slower than they come"
		} else {
			why = "it has taken nothing since " + since.UTC().Format(time.RFC3339) + ": " + why
		}
		return errs.New(errs.Unavailable,
			"the audit log has no room: %d bytes wait for the store, and %s", l.cfg.SpoolBytes, why).
			WithRemedy("repair the store; machines go on, and nothing can be changed until then")
	}
	l.mu.Unlock()
	return l.ask(request{line: line{Begun: &e}})
}

// End records how a call went, and returns once that is durable. An exec's end is recorded without
// a Begin.
func (l *Log) End(e Entry) error { return l.ask(request{line: line{Ended: &e}}) }

// ask hands something to the writer, and waits for it.
func (l *Log) ask(r request) error {
	r.answer = make(chan error, 1)
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return errs.New(errs.Unavailable, "the audit log has ended: the server stops")
	}
	l.waiting = append(l.waiting, r)
	l.mu.Unlock()
	signal(l.wake)
	return <-r.answer
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status returns how the log is.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Lacks says why changes are refused now, without names; nothing, if they aren't.
func (l *Log) Lacks() []string {
	s := l.Status()
	switch {
	case s.Broken != "":
		return []string{"its audit log can't be written"}
	case s.SpoolBytes >= s.SpoolLimit:
		return []string{"its audit log waits for the store and has no room"}
	}
	return nil
}
