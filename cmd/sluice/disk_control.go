package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The control socket of an attachment takes what only the process that has the disk can do.

// serveControl answers on the socket until ctx ends.
func serveControl(ctx context.Context, socket string, h *held) (func() error, error) {
	w := h.writer
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errs.Wrap(errs.Unavailable, err, "remove an old socket")
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "listen on %s", socket)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /checkpoints/{name}", func(rw http.ResponseWriter, r *http.Request) {
		p, err := w.Checkpoint(r.Context(), r.PathValue("name"))
		if err != nil {
			refuseControl(rw, err)
			return
		}
		writeControl(rw, http.StatusOK, api.DiskCheckpoint{Name: p.Name, CreatedAt: p.Created})
	})
	mux.HandleFunc("POST /mode", changeControl(w.setBound))
	mux.HandleFunc("POST /size", changeControl(func(ctx context.Context,
		req sizeRequest) error {
		return h.grow(ctx, req.Size)
	}))
	mux.HandleFunc("GET /stats", func(rw http.ResponseWriter,
		_ *http.Request) {
		writeControl(rw, http.StatusOK, w.Stats())
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return func() error {
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return errs.Wrap(errs.Unavailable, err, "serve %s", socket)
		}
		return nil
	}, nil
}

const maxControlBody = 64 << 10

// changeControl answers a request for a change.
func changeControl[T any](change func(context.Context, T) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		var req T
		err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, maxControlBody)).Decode(&req)
		if err != nil {
			err = errs.Wrap(errs.Invalid, err, "understand what is asked of the attachment")
		} else {
			// Also when who asked has gone: half a change would only have to be made again.
			err = change(context.WithoutCancel(r.Context()), req)
		}
		if err != nil {
			refuseControl(rw, err)
			return
		}
		writeControl(rw, http.StatusOK, struct{}{})
	}
}

func refuseControl(w http.ResponseWriter, err error) {
	writeControl(w, errhttp.Status(errs.KindOf(err)), api.ErrorBody{Error: api.Error{
		Code: string(errs.KindOf(err)), Message: err.Error(), Remedy: errs.RemedyOf(err)}})
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked is gone, and sees that
}

// checkpointAttached asks the process that has a disk for a checkpoint. What a mounted file system
// has in memory is written out first, so that the checkpoint has all that was written before the
// command.
func checkpointAttached(ctx context.Context, r *attachment.Record,
	name string) (api.DiskCheckpoint, error) {
	if r.Mountpoint != "" {
		if err := syncMount(r.Mountpoint); err != nil {
			return api.DiskCheckpoint{}, err
		}
	}
	var p api.DiskCheckpoint
	return p, tellAttached(ctx, r, "/checkpoints/"+url.PathEscape(name), nil, &p)
}

// askAttached reads what the process that has a disk says at a path.
func askAttached(ctx context.Context, r *attachment.Record, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://disk"+path, nil)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "ask for %s", path)
	}
	return callAttached(req, r, answer)
}

// tellAttached has the process that has a disk do something. The message is nil where the path says
// it all.
func tellAttached(ctx context.Context, r *attachment.Record, path string, message,
	answer any) error {
	var body io.Reader = http.NoBody
	if message != nil {
		b, err := json.Marshal(message)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "ask for %s", path)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://disk"+path, body)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "ask for %s", path)
	}
	return callAttached(req, r, answer)
}

// callAttached sends a request to the process that has a disk, and decodes what it answers.
func callAttached(req *http.Request, r *attachment.Record, answer any) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.Control)
		}}}
	answered := make(chan struct{})
	var watch errgroup.Group
	watch.Go(func() error { return freeIfStuck(r.Process, answered) })
	resp, err := c.Do(req)
	close(answered)
	err = errors.Join(err, watch.Wait())
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "ask process %d, which has the disk", r.PID)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var body api.ErrorBody
		if resp.Header.Get("Content-Type") != "application/json" &&
			resp.StatusCode == http.StatusNotFound {
			return errs.New(errs.Unsupported,
				"process %d, which has the disk, is of a release that can't do that", r.PID).
				WithRemedy("detach the disk, and attach it again")
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			return errs.Wrap(errs.Internal, err, "process %d answered %s", r.PID, resp.Status)
		}
		return errs.New(errs.Kind(body.Error.Code), "%s", body.Error.Message).WithRemedy("%s",
			body.Error.Remedy)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return errs.Wrap(errs.Internal, err, "understand what process %d answers", r.PID)
	}
	return nil
}

// stuckInterval is between two looks at a process that was asked for something.
const stuckInterval = 500 * time.Millisecond

// freeIfStuck frees a process that is killed amid what it was asked for and then waits for its own
// device: growing a loop device has the kernel ask whoever serves its file. Whoever asked would
// wait for ever too, as the socket stays open.
func freeIfStuck(p attachment.Process, answered <-chan struct{}) error {
	tick := time.NewTicker(stuckInterval)
	defer tick.Stop()
	for stuck := false; ; stuck = p.Stuck() {
		if stuck {
			return p.Free()
		}
		select {
		case <-answered:
			return nil
		case <-tick.C:
		}
	}
}

// syncMount writes out the file system that dir is on.
func syncMount(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open %s", dir)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write out %s", dir)
	}
	return nil
}
