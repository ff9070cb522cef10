package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	logRetryFirst = 200 * time.Millisecond // between tries to go on with a followed log, growing
	logRetryMost  = 2 * time.Second
)

// follow prints lines as they come until the machine is to run no more, or ctx ends. Its first
// connection has to work.
func (l *machineLog) follow(ctx context.Context) error {
	m, err := l.c.Machine(ctx, l.ref)
	if err != nil {
		return err
	}
	if len(m.Config.Services) == 0 {
		l.sayNoServices(m)
		return nil
	}
	l.ref, l.wait = m.ID, logRetryFirst // whatever becomes of the name
	part := ""
	for joined := false; ; {
		logs, err := l.c.Logs(ctx, l.ref, l.o)
		if err == nil {
			part, err = l.read(ctx, logs, joined, part)
			joined = true
		}
		if ctx.Err() != nil {
			return nil // interrupted by the one who follows
		}
		if err != nil && (!joined || !canReturn(err)) {
			return err
		}
		ended, err := l.awaitNext(ctx)
		if ended && part != "" {
			err = errors.Join(err, l.line(part+"\n"))
		}
		if ended || err != nil {
			return err
		}
	}
}

// read prints one connection's lines. part is of the line that the last one broke off, and then of
// this one's.
func (l *machineLog) read(ctx context.Context, logs *client.LogStream, joined bool,
	part string) (string, error) {
	defer logs.Close()
	again := l.enter(ctx, logs.InstanceID, joined)
	if !again && part != "" { // its rest went with the VM
		if err := l.line(part + "\n"); err != nil {
			return "", err
		}
	}
	if joined && !again && l.o.OnlyNew { // of this VM all lines are new
		l.o.Lines, l.o.OnlyNew = -1, false
		return "", nil
	}
	before := l.printed
	part, err := l.copy(logs, again)
	if l.printed > before {
		l.wait, l.told = logRetryFirst, false
	}
	if len(l.seen) > 0 || !l.o.OnlyNew {
		l.o.Lines, l.o.OnlyNew = -1, false // what came already isn't printed a second time
	}
	return part, err
}

// canReturn says of an error whether the log may be followed all the same, once the machine runs
// again.
func canReturn(err error) bool {
	var broken *brokenLog
	kind := errorKind(err)
	return errors.As(err, &broken) || kind == errs.Unavailable || kind == errs.NotFound ||
		kind == errs.Conflict
}

// enter notes whose log is read now. again: it is the one that was read before, so that lines come
// a second time.
func (l *machineLog) enter(ctx context.Context, instance string, joined bool) (again bool) {
	was := l.instance
	l.instance = instance
	if joined && was == instance && instance != "" {
		return true // and it is where it was, whatever becomes of the machine meanwhile
	}
	before := l.machine
	if m, err := l.c.Machine(ctx, l.ref); err == nil {
		l.machine = m
	}
	// A platform of an earlier release doesn't tell whose log it is.
	if !joined || (was == "" || instance == "") && before.InstanceID == l.machine.InstanceID {
		return joined
	}
	l.seen, l.floor = map[string]mark{}, ""
	what := "was started anew on"
	if l.machine.Worker != before.Worker {
		what = "moved to"
	}
	fmt.Fprintf(l.d.stderr, "machine %s %s %s; its log begins anew\n", l.machine.Name, what,
		orDash(l.machine.Worker))
	return false
}

// awaitNext waits until the machine may have a log again, at least for a moment. ended: it is to
// have none, and that was said.
func (l *machineLog) awaitNext(ctx context.Context) (ended bool, err error) {
	for {
		timer := time.NewTimer(l.wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return true, nil
		case <-timer.C:
		}
		l.wait = min(2*l.wait, logRetryMost)
		m, err := l.c.Machine(ctx, l.ref)
		switch kind := errorKind(err); {
		case ctx.Err() != nil:
			return true, nil
		case err == nil:
			if end := endOfLog(m); end != "" {
				fmt.Fprintf(l.d.stderr, "the log ended, because machine %s %s\n", m.Name, end)
				return true, nil
			}
		case kind == errs.NotFound:
			fmt.Fprintf(l.d.stderr, "the log ended, because machine %s was destroyed\n",
				l.machine.Name)
			return true, nil
		case kind != errs.Unavailable:
			return false, err
		}
		if !l.told && l.wait == logRetryMost {
			l.told = true
			l.sayWaiting(m, err)
		}
		if err == nil && m.State == "started" {
			return false, nil
		}
	}
}

// endOfLog says why a machine's log goes on nowhere; "" if it may.
func endOfLog(m api.Machine) string {
	switch {
	case m.Desired == "destroyed":
		return "is destroyed"
	case m.Desired != "started":
		return "is " + m.State
	case m.State == "failed":
		return "has failed: " + m.Reason
	}
	return ""
}

// sayWaiting says what a followed log waits for.
func (l *machineLog) sayWaiting(m api.Machine, err error) {
	if err != nil {
		fmt.Fprintf(l.d.stderr,
			"the log is interrupted, and what became of machine %s can't be told yet: %v\n",
			l.machine.Name, err)
		return
	}
	fmt.Fprintf(l.d.stderr,
		"the log is interrupted: machine %s is %s on %s; it goes on when the machine runs\n",
		m.Name, stateOf(m), orDash(m.Worker))
}
