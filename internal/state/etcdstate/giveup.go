package etcdstate

import (
	"errors"
	"runtime"
	"sync"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// starter is the function of etcd on whose stack a member starts.
const starter = "go.etcd.io/etcd/server/v3/embed.StartEtcd"

// giveUp is told by etcd that it can't go on: its fatal errors and panics, which would end this
// process with a stack trace. It turns them into an error.
type giveUp struct {
	dir  string
	once sync.Once
	done chan struct{} // closed once err is set
	err  error
}

func newGiveUp(dir string) *giveUp { return &giveUp{dir: dir, done: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook. It never returns: whoever calls it takes for granted
// that nothing comes after, and would go on to acknowledge what could not be written. In a start it
// panics, which startHere turns into an error. Later it holds the goroutine for ever, with all its
// locks, so that nobody gets past it until the process ends.
func (g *giveUp) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := &etcdError{message: entry.Message}
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err.cause = cause
		}
	}
	if isStarting() {
		panic(err)
	}
	g.once.Do(func() {
		g.err = errGaveUp(g.dir, err)
		close(g.done)
	})
	select {}
}

// reason returns why etcd has given up, or nil if it hasn't.
func (g *giveUp) reason() error {
	select {
	case <-g.done:
		return g.err
	default:
		return nil
	}
}

// isStarting tells whether this goroutine is the one that starts a member.
func isStarting() bool {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		frame, more := frames.Next()
		if frame.Function == starter {
			return true
		}
		if !more {
			return false
		}
	}
}

// etcdError is what etcd says, and why.
type etcdError struct {
	message string
	cause   error
}

func (e *etcdError) Error() string {
	if e.cause == nil {
		return e.message
	}
	return e.message + ": " + e.cause.Error()
}

func (e *etcdError) Unwrap() error { return e.cause }

// errGaveUp is for a running member.
func errGaveUp(dir string, err error) error {
	if full := errNoRoom(dir, err); full != nil {
		return full
	}
	return errs.Wrap(errs.Internal, err, "etcd on %s gave up", dir)
}

// errNoRoom returns an error with its remedy if err is for want of room, else nil. What was
// acknowledged is on disk all the same.
func errNoRoom(dir string, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return errs.Wrap(errs.Unavailable, err, "there is no room for the state in %s", dir).
		WithRemedy(
			"free space on the file system of %s, then start the server again: it goes on with all that it has acknowledged", dir)
}
