package diskapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxError is how large an error may be.
const maxError = 64 << 10

// CallerConfig says who is called.
type CallerConfig struct {
	Socket string
	Who    string // answers there, as errors name it: "process 12, which has the disk"
	// Once keeps no connection for the next call.
	Once bool
	// Watch runs while a call waits for its answer, until answered is closed. Its error is the
	// call's. nil: nobody watches.
	Watch func(answered <-chan struct{}) error
}

// Caller calls a process on its unix socket. Safe for concurrent use.
type Caller struct {
	cfg  CallerConfig
	http *http.Client
}

// NewCaller returns a caller. It connects when it is used.
func NewCaller(cfg CallerConfig) *Caller {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", cfg.Socket)
	}
	return &Caller{cfg: cfg, http: &http.Client{Transport: &http.Transport{DialContext: dial,
		DisableKeepAlives: cfg.Once, MaxIdleConnsPerHost: 4}}}
}

// Call sends a request and decodes the answer. A nil body sends none, a nil answer reads none.
// Unavailable: nobody answers; else the error is what the process has answered.
func (c *Caller) Call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode a request to %s", c.cfg.Who)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://disk"+path, payload)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make a request to %s", c.cfg.Who)
	}
	resp, err := c.send(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errs.Wrap(errs.Unavailable, err, "ask %s", c.cfg.Who)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.failure(resp)
	}
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return errs.Wrap(unread(err), err, "read what %s answers", c.cfg.Who)
	}
	return nil
}

// send returns when the answer begins.
func (c *Caller) send(req *http.Request) (*http.Response, error) {
	if c.cfg.Watch == nil {
		return c.http.Do(req)
	}
	answered := make(chan struct{})
	var watch errgroup.Group
	watch.Go(func() error { return c.cfg.Watch(answered) })
	resp, err := c.http.Do(req)
	close(answered)
	if werr := watch.Wait(); werr != nil {
		err = errors.Join(err, werr)
		if resp != nil {
			_ = resp.Body.Close() // the error is told
		}
	}
	return resp, err
}

// failure returns the error that was answered.
func (c *Caller) failure(resp *http.Response) error {
	if resp.Header.Get("Content-Type") != contentType && resp.StatusCode == http.StatusNotFound {
		return errs.New(errs.Unsupported, "%s, is of a release that can't do that", c.cfg.Who).
			WithRemedy("detach the disk, and attach it again")
	}
	var body api.ErrorBody
	err := json.NewDecoder(io.LimitReader(resp.Body, maxError)).Decode(&body)
	switch {
	case err != nil:
		return errs.Wrap(unread(err), err, "%s answers %s", c.cfg.Who, resp.Status)
	case body.Error.Code == "":
		return errs.New(errs.Internal, "%s answers %s", c.cfg.Who, resp.Status)
	}
	return errs.New(errs.Kind(body.Error.Code), "%s", body.Error.Message).
		WithRemedy("%s", body.Error.Remedy)
}

// unread is the kind of an answer that could not be read: one that makes no sense, or one that was
// cut off, as by a process that was killed.
func unread(err error) errs.Kind {
	var syntax *json.SyntaxError
	var other *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &other) {
		return errs.Internal
	}
	return errs.Unavailable
}
