// Package service keeps a machine's services running: in the order of their needs, restarted when
// they end, ready when their checks say so, stopped in the reverse order.
//
// Invariants: of one service at most one process runs. A service that was stopped on request stays
// stopped until it is started on request. When Run ends, processes keep running, and a later
// Manager takes them over. After StopAll nothing is started. A service that ends over and over
// isn't ready in between: each time it has to stay up longer first.
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
	// Wait returns a description of how it ended, once it has. Unavailable: that can't be known.
	Wait(ctx context.Context) (how string, err error)
	// Signal sends a signal to the process and its children.
	Signal(sig unix.Signal) error
	// Forget drops a process that has ended.
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
	// Stopped and Restarts are the state of an earlier Manager.
	Stopped  []string
	Restarts map[string]int
	// Closing starts nothing any more, as after StopAll.
	Closing bool
	// Share returns how much of the time work waits in this VM, 0 to 1; nil: never. It is called
	// only when a check has timed out.
	Share func() float64
	// Changed is called after each change of Reports, one call at a time.
	Changed func()
}

// Timing of restarts and checks.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 10 * time.Second
	backoffReset = 30 * time.Second // up for this long: the next restart is quick again

	// minUptime is how long a service without a check must stay up to be ready, so that one that
	// ends at once never is. After a service has ended by itself, it must stay up for twice the
	// pause before its restart.
	minUptime = 250 * time.Millisecond

	checkFirst = 2 * time.Millisecond // between tries until the first success, growing
	checkQuiet = time.Second          // for which failing is no news
	// how often in a row a ready service's check may time out under pressure
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
