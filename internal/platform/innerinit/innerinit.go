// Package innerinit is PID 1 of the inner container: it starts processes for the platform, reaps
// them, and reports how each ended. It keeps nothing on disk and decides nothing.
//
// Invariants: it listens on an inherited socket only; its descriptors reach no child; it can't be
// traced by the container's root (it isn't dumpable); a process is in the table before its exit can
// be reaped.
package innerinit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// HangupGrace is how long a process whose caller has gone may take to end after SIGHUP.
const HangupGrace = 2 * time.Second

// Config of the container's PID 1.
type Config struct {
	Log *slog.Logger
	// Syncs is the listener for the container's calls of sync; see ownsync. This process must not
	// call sync itself.
	Syncs *os.File
	// Grace overrides HangupGrace; 0 means the default.
	Grace time.Duration
}

// Init is the container's PID 1.
type Init struct {
	log   *slog.Logger
	grace time.Duration
	procs *table
	root  *ownsync.Root
	syncs *ownsync.Server
}

// New returns an Init.
func New(cfg Config) *Init {
	if cfg.Grace == 0 {
		cfg.Grace = HangupGrace
	}
	root := &ownsync.Root{}
	return &Init{log: cfg.Log, grace: cfg.Grace, procs: newTable(), root: root,
		syncs: ownsync.New(ownsync.Config{Listener: cfg.Syncs, WriteOut: root.WriteOut})}
}

// InheritedListener returns the socket that the platform passed in.
func InheritedListener() (*net.UnixListener, error) {
	unix.CloseOnExec(innerapi.ListenFD)
	f := os.NewFile(innerapi.ListenFD, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take the inherited socket: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errs.New(errs.Internal, "the inherited socket is a %T", l)
	}
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// Run serves until ctx ends. The process must be PID 1 of its namespace: Run reaps every child.
func (in *Init) Run(ctx context.Context, l *net.UnixListener) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make init untraceable: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return in.reap(ctx) })
	g.Go(func() error { return in.syncs.Run(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		return l.Close()
	})
	g.Go(func() error {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("accept: %w", err)
			}
			g.Go(func() error {
				defer conn.Close()
				in.serve(ctx, conn)
				return nil
			})
		}
	})
	return g.Wait()
}

// reap collects every ended child, ours or adopted.
func (in *Init) reap(ctx context.Context) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	for {
		for in.procs.reapOne() {
		}
		select {
		case <-ctx.Done():
			return nil
		case <-children:
		}
	}
}

// serve handles one conversation.
func (in *Init) serve(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var req innerapi.Request
	files, err := innerapi.Receive(conn, &req)
	if err != nil {
		return
	}
	defer closeAll(files)
	answer := innerapi.Answer{}
	switch req.Op {
	case innerapi.OpPing:
	case innerapi.OpList:
		answer.Processes = in.procs.list()
	case innerapi.OpForget:
		if err := in.procs.forget(req.ID); err != nil {
			answer = innerapi.Failure(err)
		}
	case innerapi.OpStart:
		in.start(ctx, conn, req, files)
		return
	case innerapi.OpWatch:
		p, err := in.procs.find(req.ID)
		if err != nil {
			answer = innerapi.Failure(err)
			break
		}
		in.follow(ctx, conn, p, innerapi.Answer{PID: p.pid})
		return
	default:
		answer = innerapi.Failure(errs.New(errs.Unsupported, "unknown request %q", req.Op))
	}
	in.answer(ctx, conn, answer)
}

func (in *Init) answer(ctx context.Context, conn *net.UnixConn, a innerapi.Answer,
	files ...*os.File) {
	if err := innerapi.Send(conn, a, files...); err != nil {
		in.log.DebugContext(ctx, "nobody hears the answer", "error", err)
	}
}

func (in *Init) start(ctx context.Context, conn *net.UnixConn, req innerapi.Request,
	files []*os.File) {
	if req.Start == nil || len(req.Start.Args) == 0 {
		in.answer(ctx, conn, innerapi.Failure(errs.New(errs.Invalid, "no command")))
		return
	}
	// The machine's root is in its place before anything is started.
	if err := in.root.Open("/"); err != nil {
		in.answer(ctx, conn, innerapi.Failure(err))
		return
	}
	p, terminal, err := in.procs.start(req.ID, *req.Start, files)
	closeAll(files) // the child has its own; ours would hide the end of its output
	if err != nil {
		in.answer(ctx, conn, innerapi.Failure(err))
		return
	}
	first := innerapi.Answer{PID: p.pid}
	if terminal != nil {
		in.answer(ctx, conn, first, terminal)
		terminal.Close()
	} else {
		in.answer(ctx, conn, first)
	}
	in.converse(ctx, conn, p)
}

// follow answers and then goes on as converse.
func (in *Init) follow(ctx context.Context, conn *net.UnixConn, p *process, first innerapi.Answer) {
	in.answer(ctx, conn, first)
	in.converse(ctx, conn, p)
}

// converse takes signals for p and reports its exit, until the process or the caller is gone.
func (in *Init) converse(ctx context.Context, conn *net.UnixConn, p *process) {
	hungUp := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(hungUp)
		for {
			var req innerapi.Request
			files, err := innerapi.Receive(conn, &req)
			closeAll(files)
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			if req.Op == innerapi.OpSignal {
				in.procs.signal(p, unix.Signal(req.Signal))
			}
		}
	})
	select {
	case <-p.done:
		exit := p.exit()
		in.answer(ctx, conn, innerapi.Answer{PID: p.pid, Exit: &exit})
	case <-hungUp:
		if !p.keep {
			in.hangUp(ctx, p)
		}
	case <-ctx.Done():
	}
	conn.Close()
	if err := g.Wait(); err != nil {
		in.log.DebugContext(ctx, "conversation ended", "error", err)
	}
}

// hangUp ends a process whose caller has gone: SIGHUP, then SIGKILL.
func (in *Init) hangUp(ctx context.Context, p *process) {
	in.procs.signal(p, unix.SIGHUP)
	in.procs.signal(p, unix.SIGCONT) // a stopped process would never see it
	timer := time.NewTimer(in.grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-ctx.Done():
	case <-timer.C:
		in.procs.signal(p, unix.SIGKILL)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
