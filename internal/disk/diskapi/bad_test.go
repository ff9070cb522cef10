package diskapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// raw sends what no client of ours would.
func raw(t *testing.T, socket, method, path string, body io.Reader) (int, string, []byte) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	req, err := http.NewRequestWithContext(wait(t), method, "http://disk"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), b
}

// TestBadRequests: what makes no sense is refused, changes nothing, and nobody else notices.
func TestBadRequests(t *testing.T) {
	d := &changes{realDisk: attach(t, memblob.New())}
	socket := serve(t, diskapi.Handler(diskapi.Attached(d)))
	large := `{"journal":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, bad := range []struct{ path, body string }{
		{diskapi.PathMode, ""}, {diskapi.PathMode, "{"}, {diskapi.PathMode, "\x00\xff"},
		{diskapi.PathMode, `{"bound_ms":"1"}`}, {diskapi.PathMode, `[]`},
		{diskapi.PathMode, `{"bound_ms":1e99}`}, {diskapi.PathMode, large},
		{diskapi.PathSize, `{"size_bytes":true}`}, {diskapi.PathSize, `{"size_bytes":-4096}`},
		{diskapi.PathSize, `{"size_bytes":1}`}, {diskapi.PathSize, `{}`},
		{diskapi.PathStall, `{"stall":{"since":"yesterday"}}`},
		{"/checkpoints/a%20b", ""}, {"/checkpoints/%2e%2e", "{}"},
		{"/checkpoints/" + strings.Repeat("x", 4096), "{}"},
	} {
		status, kind, b := raw(t, socket, http.MethodPost, bad.path, strings.NewReader(bad.body))
		if bad.path == "/checkpoints/%2e%2e" && status == http.StatusNotFound {
			continue // no name gets there
		}
		var e api.ErrorBody
		if err := json.Unmarshal(b, &e); err != nil || status != http.StatusBadRequest ||
			kind != "application/json" || e.Error.Code != string(errs.Invalid) {
			t.Errorf("POST %.40s %.40q: %d %s %.200s", bad.path, bad.body, status, kind, b)
		}
	}
	for _, other := range []struct {
		method, path string
		want         int
	}{{http.MethodGet, "/nothing", 404}, {http.MethodPost, "/", 404},
		{http.MethodPut, diskapi.PathMode, 405}, {http.MethodPost, diskapi.PathStats, 405},
		{http.MethodDelete, "/checkpoints/monday", 405}} {
		if status, _, b := raw(t, socket, other.method, other.path, nil); status != other.want {
			t.Errorf("%s %s: %d %s, want %d", other.method, other.path, status, b, other.want)
		}
	}
	noHTTP(t, socket)
	s, err := client(t, socket, "").Stats(wait(t))
	if err != nil || s.Writes != 0 || d.Size() != size || d.mode != (diskapi.Mode{}) {
		t.Errorf("after all that: %+v, size %d, mode %+v, %v", s, d.Size(), d.mode, err)
	}
}

// noHTTP sends noise, and hangs up.
func noHTTP(t *testing.T, socket string) {
	t.Helper()
	for _, noise := range [][]byte{bytes.Repeat([]byte{0xff}, 1<<16), []byte("GET"), nil} {
		conn, err := (&net.Dialer{}).DialContext(wait(t), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(noise) // it may be cut off before the end
		_ = conn.Close()
	}
}

// TestFieldsOfANewerRelease: who asks may know more than who answers.
func TestFieldsOfANewerRelease(t *testing.T) {
	d := &changes{realDisk: attach(t, memblob.New())}
	socket := serve(t, diskapi.Handler(diskapi.Attached(d)))
	status, _, b := raw(t, socket, http.MethodPost, diskapi.PathMode,
		strings.NewReader(`{"bound_ms":100,"of_the_future":{}}`))
	if status != http.StatusOK || d.mode.BoundMS != 100 {
		t.Errorf("%d %s, mode %+v", status, b, d.mode)
	}
	// an older one sends no body with the name of a checkpoint
	if status, _, b = raw(t, socket, http.MethodPost, "/checkpoints/monday",
		nil); status != http.StatusOK {
		t.Errorf("a checkpoint without a body: %d %s", status, b)
	}
}

// TestDiskWithoutChanges: what a disk can't do is told as such, and so is that there is none.
func TestDiskWithoutChanges(t *testing.T) {
	c := client(t, serve(t, diskapi.Handler(diskapi.Attached(attach(t, memblob.New())))), "")
	if err := c.SetMode(wait(t), diskapi.Mode{}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("mode: %v", err)
	}
	if err := c.Grow(wait(t), 2*size); !errs.Is(err, errs.Unsupported) {
		t.Errorf("size: %v", err)
	}
	none := client(t, serve(t, diskapi.Handler(nothing{})), "")
	_, err := none.Stats(wait(t))
	_, cerr := none.Checkpoint(wait(t), "monday")
	_, lerr := none.Checkpoints(wait(t))
	for _, err := range []error{err, cerr, lerr, none.Grow(wait(t), 2*size)} {
		if !errs.Is(err, errs.Unavailable) || errs.RemedyOf(err) != "attach one" {
			t.Errorf("without a disk: %v", err)
		}
	}
}

// nothing has no disk, and never will.
type nothing struct{}

func (nothing) Disk() (diskapi.Disk, error) {
	return nil, errs.New(errs.Unavailable, "no disk").WithRemedy("attach one")
}

func (nothing) AwaitDisk(ctx context.Context) (diskapi.Disk, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestAnswersThatAreNone: a process that is killed, one that was, one of an older release, and
// something else that listens there.
func TestAnswersThatAreNone(t *testing.T) {
	old := client(t, serve(t, http.NewServeMux()), "")
	if _, err := old.Checkpoints(wait(t)); !errs.Is(err, errs.Unsupported) ||
		errs.RemedyOf(err) == "" || !strings.Contains(err.Error(), "process 12") {
		t.Errorf("of an older release: %v", err)
	}
	gone := client(t, filepath.Join(t.TempDir(), "s"), "")
	if _, err := gone.Stats(wait(t)); !errs.Is(err, errs.Unavailable) ||
		!strings.Contains(err.Error(), "process 12") {
		t.Errorf("nobody listens: %v", err)
	}
	for answer, want := range map[string]errs.Kind{
		"": errs.Unavailable,
		"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"reads\":":   errs.Unavailable,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":          errs.Internal,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]":             errs.Internal,
		"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}":           errs.Internal,
		"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello":        errs.Internal,
		"HTTP/1.1 409 Oops\r\nContent-Length: 99\r\n\r\n{\"error\":": errs.Unavailable,
		"SSH-2.0-something\r\n":                                      errs.Unavailable,
	} {
		if _, err := client(t, says(t, answer), "").Stats(wait(t)); !errs.Is(err, want) {
			t.Errorf("%q: %v of kind %s, want %s", answer, err, errs.KindOf(err), want)
		}
	}
}

// says listens on a socket, and answers the first who asks, whatever that is, by a text. Then it
// hangs up.
func says(t *testing.T, text string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err = conn.Read(make([]byte, 4096)); err == nil {
			_, err = fmt.Fprint(conn, text)
		}
		return err
	})
	t.Cleanup(func() {
		_ = l.Close()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return socket
}
