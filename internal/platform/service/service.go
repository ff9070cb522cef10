// Package service keeps a machine's services running: in the order of their needs, restarted when they
// end, ready when their checks say so, stopped in the reverse order.
//
// Invariants: of one service at most one process runs; a service that somebody stopped stays stopped until
// somebody starts it; the end of Run leaves processes as they are, and a later Manager takes them over; once
// StopAll was called nothing is started any more. A service that ends over and over isn't ready in between: it has to
// stay up for longer each time.
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
	// Share is how much of the time work waits in this VM; nil: none. It is asked only when a check ran out of time.
	Share func() float64
	// Changed is called after each change of Reports, one call at a time.
	Changed func()
}

// Timing of restarts and checks.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 10 * time.Second
	backoffReset = 30 * time.Second // up for this long: the next restart is quick again

	// settleFirst is how long a service without a check has to stay up until it is ready: one that ends at once never
	// is. After it has ended by itself, any service has to for twice the wait before its restart.
	settleFirst = 250 * time.Millisecond

	checkFirst   = 2 * time.Millisecond // between tries until the first success, growing
	checkEvery   = time.Second
	checkTimeout = 5 * time.Second
	checkGrace   = 30 * time.Second
	checkQuiet   = time.Second // for which failing is no news
	checkMisses  = 3           // times in a row that a check of a ready service may run out of time under pressure

	stopTimeout = 5 * time.Second
	stopMost    = 300 * time.Second
)

// Check says whether services can be run as they are: names unique, commands there, needs known and
// without a circle, checks complete. Errors are Invalid.
func Check(services []fleet.Service, stop fleet.StopConfig) error {
	byName := map[string]fleet.Service{}
	for _, s := range services {
		if err := fleet.CheckName("service", s.Name); err != nil {
			return err
		}
		if _, ok := byName[s.Name]; ok {
			return errs.New(errs.Invalid, "two services are called %q", s.Name)
		}
		if len(s.Cmd) == 0 || s.Cmd[0] == "" {
			return errs.New(errs.Invalid, "service %q has no command", s.Name)
		}
		if err := checkCheck(s); err != nil {
			return err
		}
		byName[s.Name] = s
	}
	if _, err := StopSignal(stop); err != nil {
		return err
	}
	if stop.Timeout < 0 || stop.Timeout > stopMost {
		return errs.New(errs.Invalid, "stop timeout %s is not between 0 and %s", stop.Timeout, stopMost)
	}
	return checkNeeds(services, byName)
}

func checkCheck(s fleet.Service) error {
	c := s.Check
	switch {
	case c == nil:
		return nil
	case c.Kind == fleet.CheckExec && len(c.Cmd) == 0:
		return errs.New(errs.Invalid, "the check of service %q has no command", s.Name)
	case c.Kind == fleet.CheckExec:
		return nil
	case c.Kind != fleet.CheckTCP && c.Kind != fleet.CheckHTTP:
		return errs.New(errs.Invalid, "the check of service %q is of unknown kind %q", s.Name, c.Kind).
			WithRemedy("use tcp, http or exec")
	case Port(s) < 1 || Port(s) > 65535:
		return errs.New(errs.Invalid, "the check of service %q has no valid port", s.Name)
	}
	return nil
}

// Port returns the port that a check asks: its own, or the service's HTTP port.
func Port(s fleet.Service) int {
	if s.Check != nil && s.Check.Port != 0 {
		return s.Check.Port
	}
	return s.HTTPPort
}

func checkNeeds(services []fleet.Service, byName map[string]fleet.Service) error {
	const walking, done = 1, 2
	seen := map[string]int{}
	var walk func(name string) error
	walk = func(name string) error {
		switch seen[name] {
		case walking:
			return errs.New(errs.Invalid, "service %q needs itself, by way of others", name)
		case done:
			return nil
		}
		seen[name] = walking
		for _, n := range byName[name].Needs {
			if _, ok := byName[n]; !ok {
				return errs.New(errs.Invalid, "service %q needs %q, which isn't there", name, n)
			}
			if err := walk(n); err != nil {
				return err
			}
		}
		seen[name] = done
		return nil
	}
	for _, s := range services {
		if err := walk(s.Name); err != nil {
			return err
		}
	}
	return nil
}

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
	return 0, errs.New(errs.Invalid, "unknown stop signal %q", stop.Signal).WithRemedy("use a name such as SIGTERM or SIGINT")
}
