// Package service keeps a machine's services running: in the order of their needs, restarted when
// they end, ready when their checks say so, stopped in the reverse order.
//
// Invariants: of one service at most one process runs; a service that somebody stopped stays
// stopped until somebody starts it; the end of Run leaves processes as they are, and a later
// Manager takes them over; once StopAll was called nothing is started any more. A service that ends
// over and over isn't ready in between: it has to stay up for longer each time.
package service

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// States of a service, as reported.
const (
	Stopped  = "stopped"
	Starting = "starting"
	Running  = "running"
	Ready    = "ready"
	Stopping = "stopping"
	Failed   = "failed" // it ended, or could not be started, and will be tried again
)

// Process is a running process of a service.
type Process interface {
	PID() int
	// Wait returns in words how it has ended, once it has. Unavailable: nobody can tell any more.
	Wait(ctx context.Context) (how string, err error)
	// Signal reaches it and its children.
	Signal(sig unix.Signal) error
	// Forget lets go of a process that has ended.
	Forget()
}

// Runner starts processes.
type Runner interface {
	Start(ctx context.Context, svc fleet.Service) (Process, error)
	// Adopt returns the process that an earlier Manager started; NotFound if none is running.
	Adopt(ctx context.Context, name string) (Process, error)
}

// Prober asks a service whether it is ready.
type Prober interface {
	Probe(ctx context.Context, svc fleet.Service) error
}

// Config of a Manager.
type Config struct {
	Services []fleet.Service
	Stop     fleet.StopConfig
	Runner   Runner
	Prober   Prober
	Log      *slog.Logger
	// Stopped and Restarts are what an earlier Manager knew.
	Stopped  []string
	Restarts map[string]int
	// Closing: nothing is to be started any more, as after StopAll.
	Closing bool
	// Share is how much of the time work waits in this VM; nil: none. It is asked only when a check
	// ran out of time.
	Share func() float64
	// Changed is called after each change of Reports, one call at a time.
	Changed func()
}

// Timing of restarts and checks.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 10 * time.Second
	backoffReset = 30 * time.Second // up for this long: the next restart is quick again

	// minUptime is how long a service without a check has to stay up until it is ready: one that
	// ends at once never is. After it has ended by itself, any service has to for twice the wait
	// before its restart.
	minUptime = 250 * time.Millisecond

	checkFirst = 2 * time.Millisecond // between tries until the first success, growing
	checkQuiet = time.Second          // for which failing is no news
	// times in a row that a check of a ready service may run out of time under pressure
	checkMisses = 3
)

// StopSignal returns the signal that asks a service to stop.
func StopSignal(stop fleet.StopConfig) (unix.Signal, error) {
	if stop.Signal == "" {
		return unix.SIGTERM, nil
	}
	for _, name := range []string{stop.Signal, "SIG" + stop.Signal} {
		if sig := unix.SignalNum(name); sig != 0 {
			return sig, nil
		}
	}
	return 0, errs.New(errs.Invalid, "unknown stop signal %q", stop.Signal).
		WithRemedy("use a name such as SIGTERM or SIGINT")
}
