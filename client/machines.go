package client

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/api"
)

// References to machines are exact: an id, app/name, or a name that is unique in the fleet.

// MachineFilter narrows a list; empty fields match all.
type MachineFilter struct {
	App, Network, Worker, State string
}

// CreateMachine creates a machine. It returns before the machine runs; see WaitMachine.
func (c *Client) CreateMachine(ctx context.Context, req api.CreateMachine) (api.Machine, error) {
	var m api.Machine
	err := c.post(ctx, pathOf("machines"), req, &m)
	return m, err
}

// Machines returns all machines that match, in the order of their ids.
func (c *Client) Machines(ctx context.Context, f MachineFilter) ([]api.Machine, error) {
	q := url.Values{}
	for k, v := range map[string]string{"app": f.App, "network": f.Network, "worker": f.Worker,
		"state": f.State} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return listAll[api.Machine](ctx, c, pathOf("machines"), q)
}

// Machine returns one machine with its events.
func (c *Client) Machine(ctx context.Context, ref string) (api.Machine, error) {
	var m api.Machine
	err := c.get(ctx, machinePath(ref), nil, &m)
	return m, err
}

// Conditions for WaitMachine. Each is also over once waiting can't make it true any more: the
// machine has failed, or something else is wanted of it now.
const (
	UntilStarted = "started" // and healthy
	UntilStopped = "stopped"
	UntilSettled = "settled" // nothing is being done with it
)

// WaitMachine returns the machine once the condition is true, or can't become true any more. It
// waits until ctx ends, and reconnects.
func (c *Client) WaitMachine(ctx context.Context, ref, until string,
	over func(api.Machine) bool) (api.Machine, error) {
	return waitFor(ctx, func() (api.Machine, error) {
		var m api.Machine
		err := c.get(ctx, machinePath(ref), url.Values{"wait": {until}}, &m)
		return m, err
	}, over)
}

// retryPause is the pause before a wait reconnects.
const retryPause = 300 * time.Millisecond

// waitFor repeats a call until over returns true. It retries the error "unavailable", and no other.
func waitFor[T any](ctx context.Context, ask func() (T, error), over func(T) bool) (T, error) {
	for {
		v, err := ask()
		switch {
		case err == nil && over(v):
			return v, nil
		case err != nil && !IsCode(err, codeUnavailable):
			return v, err
		case err != nil:
			if err := pause(ctx, retryPause); err != nil {
				return v, err
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// StartMachine requests that a machine runs. It returns once the request is durable; see
// WaitMachine.
func (c *Client) StartMachine(ctx context.Context, ref string) (api.Machine, error) {
	var m api.Machine
	err := c.post(ctx, machinePath(ref, "start"), nil, &m)
	return m, err
}

// StopMachine requests that a machine stops cleanly. It returns once the request is durable.
func (c *Client) StopMachine(ctx context.Context, ref string) (api.Machine, error) {
	var m api.Machine
	err := c.post(ctx, machinePath(ref, "stop"), nil, &m)
	return m, err
}

// DestroyMachine removes a machine and its disk for good. It returns once the request is durable.
func (c *Client) DestroyMachine(ctx context.Context, ref string) error {
	return c.delete(ctx, machinePath(ref))
}

// MigrateMachine starts a move to a worker, or to the best one if that is "".
func (c *Client) MigrateMachine(ctx context.Context, ref, to string) (api.Move, error) {
	var m api.Move
	err := c.post(ctx, machinePath(ref, "migrate"), api.Migrate{To: to}, &m)
	return m, err
}

// MachineEvents returns a machine's history, oldest first.
func (c *Client) MachineEvents(ctx context.Context, ref string) ([]api.Event, error) {
	return listAll[api.Event](ctx, c, machinePath(ref, "events"), nil)
}

// Services returns the states of a running machine's services.
func (c *Client) Services(ctx context.Context, ref string) ([]api.ServiceInfo, error) {
	return listAll[api.ServiceInfo](ctx, c, machinePath(ref, "services"), nil)
}

// SignalService starts, stops or restarts a service of a running machine, by what action says.
func (c *Client) SignalService(ctx context.Context, ref, service, action string) error {
	return c.post(ctx, machinePath(ref, "services", service, action), nil, nil)
}

// MachineDiskStats returns what the disk of a running machine did since it was attached.
func (c *Client) MachineDiskStats(ctx context.Context, ref string) (api.DiskStats, error) {
	var s api.DiskStats
	err := c.get(ctx, machinePath(ref, "disk", "stats"), nil, &s)
	return s, err
}

// MachineDisk describes the disk of a running machine.
func (c *Client) MachineDisk(ctx context.Context, ref string) (api.DiskInfo, error) {
	var d api.DiskInfo
	err := c.get(ctx, machinePath(ref, "disk"), nil, &d)
	return d, err
}

// CheckpointMachine makes a named point of a running machine's disk.
func (c *Client) CheckpointMachine(ctx context.Context, ref,
	name string) (api.DiskCheckpoint, error) {
	var p api.DiskCheckpoint
	err := c.post(ctx, machinePath(ref, "checkpoints", name), nil, &p)
	return p, err
}

// MachineCheckpoints lists the checkpoints of a running machine's disk.
func (c *Client) MachineCheckpoints(ctx context.Context, ref string) ([]api.DiskCheckpoint, error) {
	return listAll[api.DiskCheckpoint](ctx, c, machinePath(ref, "checkpoints"), nil)
}

// LogOptions choose what Logs returns.
type LogOptions struct {
	Service string // "" for all
	Lines   int    // newest lines to begin with; negative for all, 0 leaves it to the platform
	OnlyNew bool   // none of the lines that there are
	Follow  bool
}

// LogStream is a machine's log as text lines.
type LogStream struct {
	io.ReadCloser
	// InstanceID is the instance of the machine that wrote the lines. Each instance has a log of
	// its own. "" if its platform is too old to tell.
	InstanceID string
}

// Logs returns a machine's log; the caller closes it. A followed log ends when ctx ends, when the
// machine stops or moves, or when the reader falls too far behind.
func (c *Client) Logs(ctx context.Context, ref string, o LogOptions) (*LogStream, error) {
	q := url.Values{}
	if o.Service != "" {
		q.Set("service", o.Service)
	}
	switch {
	case o.OnlyNew:
		q.Set("lines", "0")
	case o.Lines != 0:
		q.Set("lines", strconv.Itoa(o.Lines))
	}
	if o.Follow {
		q.Set("follow", "1")
	}
	req, err := c.newRequest(ctx, http.MethodGet, machinePath(ref, "logs"), q, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req) //nolint:bodyclose // whoever reads the stream closes it
	if err != nil {
		return nil, err
	}
	return &LogStream{ReadCloser: resp.Body, InstanceID: resp.Header.Get(api.HeaderInstance)}, nil
}

// PortRequest is a request to a program in a machine.
type PortRequest struct {
	Port   int
	Method string    // GET where it is ""
	Path   string    // begins with a slash
	Body   io.Reader // nil: none
}

// Do sends a request to one of a machine's ports and returns the machine's answer, whatever its
// status. The caller closes its body.
func (c *Client) Do(ctx context.Context, ref string, r PortRequest) (*http.Response, error) {
	path := machinePath(ref, "ports", strconv.Itoa(r.Port)) + r.Path
	req, err := c.newRequest(ctx, cmp.Or(r.Method, http.MethodGet), path, nil, r.Body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	return resp, nil
}
