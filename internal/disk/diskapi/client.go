package diskapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
)

// Client asks the process that has a disk attached. Safe for concurrent use.
type Client struct {
	caller *Caller
	prefix string
}

// NewClient returns a client whose paths begin with prefix: "", or PathDisk.
func NewClient(c *Caller, prefix string) *Client { return &Client{caller: c, prefix: prefix} }

// Stats returns what the disk did since it was attached. Unavailable: none is.
func (c *Client) Stats(ctx context.Context) (disk.Stats, error) {
	var s disk.Stats
	err := c.get(ctx, PathStats, &s)
	return s, err
}

// Checkpoint names the disk's present state, as of its last flush.
func (c *Client) Checkpoint(ctx context.Context, name string) (api.DiskCheckpoint, error) {
	var p api.DiskCheckpoint
	// the path of another name may be that of another call
	if err := disk.CheckName(name); err != nil {
		return p, err
	}
	path := strings.Replace(PathCheckpoint, "{name}", url.PathEscape(name), 1)
	err := c.post(ctx, path, struct{}{}, &p)
	return p, err
}

// Checkpoints lists the disk's checkpoints.
func (c *Client) Checkpoints(ctx context.Context) ([]api.DiskCheckpoint, error) {
	var all []api.DiskCheckpoint
	err := c.get(ctx, PathCheckpoints, &all)
	return all, err
}

// SetMode changes how the disk acknowledges flushes. Unsupported: it is a machine's.
func (c *Client) SetMode(ctx context.Context, m Mode) error {
	return c.post(ctx, PathMode, m, nil)
}

// Grow makes the disk larger, and the block device that shows it.
func (c *Client) Grow(ctx context.Context, size int64) error {
	return c.post(ctx, PathSize, Size{Bytes: size}, nil)
}

// AwaitStall returns what there is of a stall, nil if there is none, once that differs from known.
// While there is one it also answers every half second, with since when somebody waits.
func (c *Client) AwaitStall(ctx context.Context, known *disk.Stall) (*disk.Stall, error) {
	var now Stall
	err := c.post(ctx, PathStall, Stall{known}, &now)
	return now.Stall, err
}

func (c *Client) get(ctx context.Context, path string, answer any) error {
	return c.caller.Call(ctx, http.MethodGet, c.prefix+path, nil, answer)
}

func (c *Client) post(ctx context.Context, path string, body, answer any) error {
	return c.caller.Call(ctx, http.MethodPost, c.prefix+path, body, answer)
}
