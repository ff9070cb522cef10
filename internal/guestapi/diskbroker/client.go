package diskbroker

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Client asks a VM's broker. Safe for concurrent use; nil stands for a VM that has none.
type Client struct{ socket string }

// Find returns the client of this VM's broker; nil: it has none, and a kernel of its own.
func Find() *Client {
	if _, err := os.Lstat(Socket); err != nil {
		return nil
	}
	return &Client{socket: Socket}
}

// At returns a client of the broker at another socket.
func At(socket string) *Client { return &Client{socket: socket} }

// call asks and waits for the answer. What is asked for goes on if ctx ends before.
func (c *Client) call(ctx context.Context, req Request) (Reply, *os.File, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return Reply{}, nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := req.send(conn); err != nil {
		return Reply{}, nil, errs.Wrap(errs.Unavailable, err, "ask the VM's broker")
	}
	reply, file, err := readReply(conn)
	if err != nil && errs.KindOf(err) == errs.Internal {
		err = errs.Wrap(errs.Unavailable, err, "ask the VM's broker")
	}
	return reply, file, err
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unixpacket", c.socket)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "reach the VM's broker")
	}
	return conn.(*net.UnixConn), nil
}

// file makes a call that returns a descriptor.
func (c *Client) file(ctx context.Context, req Request) (int, error) {
	_, f, err := c.call(ctx, req)
	if err != nil {
		return -1, err
	}
	if f == nil {
		return -1, errs.New(errs.Unavailable, "the VM's broker sent no descriptor")
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, errs.Wrap(errs.Exhausted, err, "take a descriptor of the VM's broker")
	}
	return fd, nil
}

func (c *Client) plain(req Request) error {
	_, _, err := c.call(context.Background(), req)
	return err
}

// Connect makes a FUSE mount, and returns the connection to serve.
func (c *Client) Connect(ctx context.Context, name string) (int, error) {
	return c.file(ctx, Request{Op: OpConnect, Name: name})
}

// Attach puts a loop device over the file in the mount, and returns the device's path on the host.
func (c *Client) Attach(ctx context.Context) (string, error) {
	reply, _, err := c.call(ctx, Request{Op: OpAttach})
	return reply.Path, err
}

// Resize has the kernel know the file's size by now.
func (c *Client) Resize() error { return c.plain(Request{Op: OpResize}) }

// Detach writes out what the device holds and lets go of it.
func (c *Client) Detach() error { return c.plain(Request{Op: OpDetach}) }

// Abort gives the FUSE connection up.
func (c *Client) Abort() error { return c.plain(Request{Op: OpAbort}) }

// Mount mounts the file system on the device, if it isn't yet, and returns a mount of it that is
// attached nowhere: with the VM's ids, and without programs and devices.
func (c *Client) Mount(ctx context.Context) (int, error) {
	return c.file(ctx, Request{Op: OpMount})
}

// Barriers switches barriers of the file system.
func (c *Client) Barriers(on bool) error { return c.plain(Request{Op: OpBarriers, On: on}) }

// Grow grows the file system to its device. It returns how large the file system was, and could
// be, in bytes; also where it fails to grow.
func (c *Client) Grow(ctx context.Context) (has, could int64, err error) {
	reply, _, err := c.call(ctx, Request{Op: OpGrow})
	return reply.Has, reply.Could, err
}

// Tree returns a mount of the file system with the ids of a user namespace of the VM's.
func (c *Client) Tree(ctx context.Context, users *os.File) (int, error) {
	return c.file(ctx, Request{Op: OpTree, Users: users})
}

// Unmount unmounts the file system, and returns when nobody uses it any more. It is tried again
// until ctx ends.
func (c *Client) Unmount(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		_, _, err := c.call(ctx, Request{Op: OpUnmount})
		if !errors.Is(err, unix.EBUSY) || backoff.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

// Drop lets go of the file system without waiting for who uses it.
func (c *Client) Drop() error { return c.plain(Request{Op: OpDrop}) }

// Watch returns nil when the broker has ended, or the error of ctx.
func (c *Client) Watch(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil //nolint:nilerr // nobody listens: it has ended
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := (Request{Op: OpWatch}).send(conn); err == nil {
		_, _, _ = readReply(conn) // never answered
	}
	return ctx.Err()
}
