package innerapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Client calls the container's PID 1. Safe for concurrent use; each call has a connection of its
// own.
type Client struct{ path string }

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client { return &Client{path: path} }

// Ping returns once PID 1 answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, Request{Op: OpPing})
	return err
}

// List returns the processes that PID 1 has started and not forgotten.
func (c *Client) List(ctx context.Context) ([]Info, error) {
	a, err := c.ask(ctx, Request{Op: OpList})
	return a.Processes, err
}

// Forget removes a kept process that has exited. An unknown one is no error.
func (c *Client) Forget(ctx context.Context, id string) error {
	_, err := c.ask(ctx, Request{Op: OpForget, ID: id})
	return err
}

// Start runs a command. stdio are its three descriptors, or none with TTY; the caller still owns
// them. NotFound or Denied: the command can't be run. Conflict: the ID is in use.
func (c *Client) Start(ctx context.Context, id string, start Start,
	stdio ...*os.File) (*Process, error) {
	return c.converse(ctx, Request{Op: OpStart, ID: id, Start: &start}, stdio)
}

// Watch returns a process that was started earlier, for its exit and for signals. NotFound: there
// is none.
func (c *Client) Watch(ctx context.Context, id string) (*Process, error) {
	return c.converse(ctx, Request{Op: OpWatch, ID: id}, nil)
}

func (c *Client) ask(ctx context.Context, req Request) (Answer, error) {
	p, err := c.converse(ctx, req, nil)
	if err != nil {
		return Answer{}, err
	}
	p.Close()
	return p.first, nil
}

func (c *Client) converse(ctx context.Context, req Request, files []*os.File) (*Process, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unixpacket", c.path)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "reach the container's init")
	}
	conn, ok := raw.(*net.UnixConn)
	if !ok {
		return nil, errs.New(errs.Internal, "unix dial gave %T", raw)
	}
	p := &Process{conn: conn}
	defer p.interruptible(ctx)()
	if err := Send(conn, req, files...); err != nil {
		conn.Close()
		return nil, err
	}
	got, err := receive(conn, &p.first, true)
	if err == nil {
		err = p.first.Err()
	}
	if err == nil && len(got) > 0 {
		p.Terminal = got[0]
		got = got[1:]
	}
	closeAll(got)
	if err != nil {
		p.Close()
		return nil, fromContext(ctx, err, "ask the container's init to "+string(req.Op))
	}
	p.PID = p.first.PID
	return p, nil
}

// Process is a conversation about one process.
type Process struct {
	PID      int
	Terminal *os.File // with TTY: the terminal's controlling end, which is the caller's to close
	conn     *net.UnixConn
	first    Answer
}

// Wait returns the process's exit. Only one call at a time. Unavailable: the container has ended.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	if p.first.Exit != nil {
		return *p.first.Exit, nil
	}
	defer p.interruptible(ctx)()
	for {
		var a Answer
		files, err := Receive(p.conn, &a)
		closeAll(files)
		if errors.Is(err, io.EOF) {
			return Exit{}, errs.New(errs.Unavailable, "the container's init is gone")
		}
		if err != nil {
			return Exit{}, fromContext(ctx, err, "wait for a process")
		}
		if a.Exit != nil {
			return *a.Exit, nil
		}
	}
}

// Signal sends a signal to the process and its group. A process that has ended is no error.
func (p *Process) Signal(sig unix.Signal) error {
	err := Send(p.conn, Request{Op: OpSignal, Signal: int(sig)})
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// Close ends the conversation, and the process with it unless it is kept. It doesn't close
// Terminal.
func (p *Process) Close() error { return p.conn.Close() }

// interruptible makes blocked reads of p end when ctx does, until the returned function is called.
func (p *Process) interruptible(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			return
		}
		_ = p.conn.SetDeadline(time.Time{})
	}
}

func fromContext(ctx context.Context, err error, what string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", what, err)
}
