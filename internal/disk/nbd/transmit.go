package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// quickRequest is what a request may take to be served by whoever has read it. One that takes
// longer, because it waits for the store, is left to others from then on, until they are quick
// again.
const quickRequest = time.Millisecond

// Transmit serves the first export of cfg on a connected stream socket on which nothing is
// negotiated, because the other side was told all of it beforehand, as the kernel's client is:
// requests and simple replies, from the first byte on. The socket must be blocking, and is closed
// in the end.
//
// It returns when ctx has ended or the other side has left. As with Server.Run, those requests that
// were begun are answered first.
func Transmit(ctx context.Context, cfg Config, socket *os.File) error {
	if err := cfg.complete(); err != nil {
		return errors.Join(err, closeQuietly(socket))
	}
	err := newDirect(&cfg, socket).runDirect(ctx)
	if err != nil {
		err = errs.Wrap(errs.Unavailable, err, "serve NBD export %s", cfg.Exports[0].Name)
	}
	return errors.Join(err, closeQuietly(socket))
}

// Flags are the transmission flags of an export, which a client would be told in a negotiation.
func (e *Export) Flags() uint64 { return uint64(e.flags()) }

// direct is a connection to a client on the same host: who has read a request also serves it and
// writes the answer, because waking others costs more than most requests do.
type direct struct {
	socket *os.File
	slow   [cmdWrite + 1]atomic.Bool // by command

	mu     sync.Mutex // held while an answer is written
	failed bool
}

func newDirect(cfg *Config, socket *os.File) *session {
	e := &cfg.Exports[0]
	return &session{direct: &direct{socket: socket}, export: e, limit: cfg.ConnMemory,
		memory: semaphore.NewWeighted(cfg.ConnMemory), buffers: &bufferPool{},
		log: cfg.Logger.With(slog.String("client", "kernel"))}
}

// runDirect serves requests until the client leaves or ctx ends, which are no errors. It returns
// when all of them are answered.
func (s *session) runDirect(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() {
		s.closing.Store(true)
		// What was sent is still read, and refused.
		_ = s.direct.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
	})
	defer unhook()
	var workers errgroup.Group
	in := bufio.NewReaderSize(s.direct.socket, bufferSize)
	workers.Go(func() error { return s.lead(context.WithoutCancel(ctx), in, &workers) })
	err := workers.Wait()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// lead reads requests and serves them, until one comes that may take longer: while that is served,
// another goroutine leads. So none waits for another to be woken. How many there are is bounded by
// what the client has under way at once.
func (s *session) lead(ctx context.Context, in *bufio.Reader, workers *errgroup.Group) error {
	for {
		r, err := s.nextRequest(ctx, in)
		if err != nil || r == nil {
			return err
		}
		quick := s.direct.isQuick(r)
		if !quick {
			workers.Go(func() error { return s.lead(ctx, in, workers) })
		}
		s.serve(ctx, r)
		if !quick {
			return nil
		}
	}
}

// isQuick reports whether a request is of a kind that is served at once.
func (d *direct) isQuick(r *request) bool {
	return r.cmd <= cmdWrite && r.flags&cmdFlagFUA == 0 && !d.slow[r.cmd].Load()
}

// learn notes how long a request has taken.
func (d *direct) learn(r *request, took time.Duration) {
	if r.cmd > cmdWrite || r.flags&cmdFlagFUA != 0 {
		return
	}
	if slow := took > quickRequest; slow != d.slow[r.cmd].Load() {
		d.slow[r.cmd].Store(slow)
	}
}

// write writes an answer whole. After an error nothing more is written, and the reader finds that
// the client has left.
func (d *direct) write(r *reply) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed {
		return
	}
	if err := d.writeParts(r.parts); err != nil {
		d.failed = true
		_ = d.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
	}
}

func (d *direct) writeParts(parts [][]byte) error {
	for len(parts) > 0 {
		n, err := unix.Writev(int(d.socket.Fd()), parts)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for n = max(n, 0); len(parts) > 0 && n >= len(parts[0]); parts = parts[1:] {
			n -= len(parts[0])
		}
		if len(parts) > 0 {
			parts[0] = parts[0][n:]
		}
	}
	return nil
}

func (d *direct) control(f func(fd int) error) error {
	raw, err := d.socket.SyscallConn()
	if err != nil {
		return err
	}
	var did error
	if err := raw.Control(func(fd uintptr) { did = f(int(fd)) }); err != nil &&
		!errors.Is(err, net.ErrClosed) {
		return err
	}
	return did
}
