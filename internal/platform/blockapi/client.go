package blockapi

import (
	"context"
	"errors"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Client of blockd. Safe for concurrent use.
type Client struct {
	caller *diskapi.Caller
	disk   *diskapi.Client
	socket string
}

// NewClient returns a client of blockd's socket.
func NewClient(socket string) *Client {
	caller := diskapi.NewCaller(diskapi.CallerConfig{Socket: socket, Who: "blockd"})
	return &Client{caller: caller, disk: diskapi.NewClient(caller, diskapi.PathDisk),
		socket: socket}
}

// Disk returns a client of what any attached disk answers. Unavailable: none is attached.
func (c *Client) Disk() *diskapi.Client { return c.disk }

// Info returns the disk's state.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	return info, c.get(ctx, PathInfo, &info)
}

// PID returns the process that listens on blockd's socket. It works also if that process answers
// nothing.
func (c *Client) PID(ctx context.Context) (int, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "reach blockd")
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, errs.Wrap(errs.Internal, err, "find blockd's process")
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer,
			peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, peerErr); err != nil {
		return 0, errs.Wrap(errs.Internal, err, "find blockd's process")
	}
	return int(peer.Pid), nil
}

// Prepare reads ahead what an attach will need.
func (c *Client) Prepare(ctx context.Context, store guestapi.StoreAccess) error {
	return c.post(ctx, PathPrepare, store, nil)
}

// Attach attaches a disk and makes it a block device.
func (c *Client) Attach(ctx context.Context, a Attach) (Info, error) {
	var info Info
	return info, c.post(ctx, PathAttach, a, &info)
}

// Close closes the disk cleanly. It must not be mounted any more.
func (c *Client) Close(ctx context.Context) (Info, error) {
	var info Info
	return info, c.post(ctx, PathClose, struct{}{}, &info)
}

// Abandon detaches the disk without writing to it.
func (c *Client) Abandon(ctx context.Context) (Info, error) {
	var info Info
	return info, c.post(ctx, PathAbandon, struct{}{}, &info)
}

// AwaitStopped returns why the disk has stopped by itself: Fenced, Corrupt or Denied. Unavailable:
// blockd has ended.
func (c *Client) AwaitStopped(ctx context.Context) error {
	return c.get(ctx, PathWatch, nil)
}

// AwaitStall is that of any attached disk, in the fleet's words. It waits for an attach. During a
// stall it also returns every half second, with an updated time since when requests wait.
func (c *Client) AwaitStall(ctx context.Context, known *fleet.DiskStall) (*fleet.DiskStall, error) {
	var last *disk.Stall
	if known != nil {
		last = &disk.Stall{Since: known.Since}
	}
	now, err := c.disk.AwaitStall(ctx, last)
	return StallOf(now), err
}

// HoldIO lets the disk's requests wait for the store without a limit while on is set. Set it only
// while every process that uses the disk is frozen.
func (c *Client) HoldIO(ctx context.Context, on bool) error {
	return c.post(ctx, PathHold, Hold{on}, nil)
}

// Settle writes out dirty data while the disk is in use, so that Close has little left to do.
func (c *Client) Settle(ctx context.Context) error {
	return c.post(ctx, PathSettle, struct{}{}, nil)
}

func (c *Client) get(ctx context.Context, path string, answer any) error {
	return c.caller.Call(ctx, http.MethodGet, path, nil, answer)
}

func (c *Client) post(ctx context.Context, path string, body, answer any) error {
	return c.caller.Call(ctx, http.MethodPost, path, body, answer)
}
