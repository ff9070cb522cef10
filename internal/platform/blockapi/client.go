package blockapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Client of blockd. Safe for concurrent use.
type Client struct {
	http   *http.Client
	socket string
}

// NewClient returns a client of blockd's socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 4}}}
}

// Info returns the disk's state.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	return info, c.call(ctx, http.MethodGet, PathInfo, nil, &info)
}

// Stats returns what the disk did since it was attached. Unavailable: no disk is attached.
func (c *Client) Stats(ctx context.Context) (disk.Stats, error) {
	var s disk.Stats
	err := c.call(ctx, http.MethodGet, PathStats, nil, &s)
	return s, err
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
	return c.call(ctx, http.MethodPost, PathPrepare, store, nil)
}

// Attach attaches a disk and makes it a block device.
func (c *Client) Attach(ctx context.Context, a Attach) (Info, error) {
	var info Info
	return info, c.call(ctx, http.MethodPost, PathAttach, a, &info)
}

// Close closes the disk cleanly. It must not be mounted any more.
func (c *Client) Close(ctx context.Context) (Info, error) {
	var info Info
	return info, c.call(ctx, http.MethodPost, PathClose, struct{}{}, &info)
}

// Abandon detaches the disk without writing to it.
func (c *Client) Abandon(ctx context.Context) (Info, error) {
	var info Info
	return info, c.call(ctx, http.MethodPost, PathAbandon, struct{}{}, &info)
}

// AwaitStopped returns why the disk has stopped by itself: Fenced, Corrupt or Denied. Unavailable:
// blockd has ended.
func (c *Client) AwaitStopped(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, PathWatch, nil, nil)
}

// AwaitStall returns the store's stall once it differs from known; nil: there is none. During a
// stall it also returns every half second, with an updated time since when requests wait.
func (c *Client) AwaitStall(ctx context.Context, known *fleet.DiskStall) (*fleet.DiskStall, error) {
	var now Stall
	err := c.call(ctx, http.MethodPost, PathStall, Stall{known}, &now)
	return now.Stall, err
}

// HoldIO lets the disk's requests wait for the store without a limit while on is set. Set it only
// while every process that uses the disk is frozen.
func (c *Client) HoldIO(ctx context.Context, on bool) error {
	return c.call(ctx, http.MethodPost, PathHold, Hold{on}, nil)
}

// Settle writes out dirty data while the disk is in use, so that Close has little left to do.
func (c *Client) Settle(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, PathSettle, struct{}{}, nil)
}

// Checkpoint names the disk's present state, as of its last flush.
func (c *Client) Checkpoint(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, PathCheckpoint, Checkpoint{Name: name}, nil)
}

// Checkpoints lists the disk's checkpoints.
func (c *Client) Checkpoints(ctx context.Context) ([]Checkpoint, error) {
	var all []Checkpoint
	return all, c.call(ctx, http.MethodGet, PathCheckpoints, nil, &all)
}

func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode a request to blockd")
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://blockd"+path, payload)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make a request to blockd")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errs.Wrap(errs.Unavailable, err, "reach blockd")
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return failure(resp)
	}
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return errs.Wrap(errs.Unavailable, err, "read blockd's answer")
	}
	return nil
}

func failure(resp *http.Response) error {
	var e errs.Wire
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&e); err != nil {
		return errs.Wrap(errs.Internal, err, "blockd answers %s", resp.Status)
	}
	return e.Err()
}
