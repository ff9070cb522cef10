package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

const token = "operator-token-for-tests"

// newServer serves an in-memory fleet; wrap may stand in front of it.
func newServer(t *testing.T, f *httpapitest.Fleet,
	wrap func(http.Handler) http.Handler) *client.Client {
	t.Helper()
	a, err := httpapi.New(httpapi.Config{OperatorToken: token,
		LongPoll: 50 * time.Millisecond},
		httpapi.DepsOf(f, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = a
	if wrap != nil {
		h = wrap(a)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/", token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func create(t *testing.T, c *client.Client, name string) api.Machine {
	t.Helper()
	m, err := c.CreateMachine(t.Context(), api.CreateMachine{Name: name, App: "shop",
		Network: "prod", Config: api.MachineConfig{Image: "base"}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRoundTrips(t *testing.T) {
	ctx := t.Context()
	f := httpapitest.New()
	c := newServer(t, f, nil)
	m := create(t, c, "web-1")
	must := func(what string, err error, ok bool) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	got, err := c.WaitMachine(ctx, "shop/web-1", client.UntilStarted,
		func(m api.Machine) bool { return m.Healthy })
	must("wait", err, got.ID == m.ID && len(got.Events) == 2)
	list, err := c.Machines(ctx, client.MachineFilter{App: "shop", Worker: "w1"})
	must("list", err, len(list) == 1)
	events, err := c.MachineEvents(ctx, m.ID)
	must("events", err, len(events) == 2)
	got, err = c.StopMachine(ctx, m.ID)
	must("stop", err, got.State == "stopped")
	got, err = c.StartMachine(ctx, m.ID)
	must("start", err, got.Generation == 2)
	move, err := c.MigrateMachine(ctx, "web-1", "")
	must("migrate", err, move.To == "w2")
	move, err = c.Move(ctx, move.ID)
	must("move", err, move.MachineName == "web-1")
	w, err := c.Cordon(ctx, "w1", "fan")
	must("cordon", err, w.State == "cordoned")
	w, err = c.Uncordon(ctx, "w1")
	must("uncordon", err, w.State == "ready")
	workers, err := c.Workers(ctx)
	must("workers", err, len(workers) == 2)
	d, err := c.StartDrain(ctx, "w1")
	must("drain", err, d.State == "running")
	drains, err := c.Drains(ctx)
	must("drains", err, len(drains) == 1)
	d, err = c.CancelDrain(ctx, d.ID)
	must("cancel", err, client.DrainEnded(d))
	server, err := c.Server(ctx)
	must("server", err, server.FleetID == "test")
	image, err := c.CreateImage(ctx, "site", 1<<30, strings.NewReader("tar"))
	must("image", err, image.SizeBytes == 1<<30)
	images, err := c.Images(ctx)
	must("images", err, len(images) == 2)
	must("destroy", c.DestroyMachine(ctx, m.ID), true)
	_, err = c.Machine(ctx, m.ID)
	if !client.IsCode(err, "not_found") {
		t.Errorf("a destroyed machine: %v", err)
	}
}

func TestErrorsKeepTheirParts(t *testing.T) {
	c := newServer(t, httpapitest.New(), nil)
	_, err := c.Worker(t.Context(), "w9")
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "not_found" || e.Remedy == "" || e.RequestID == "" {
		t.Fatalf("%+v", err)
	}
	_, err = c.CreateImage(t.Context(), "base", 1<<30, readerFunc(func([]byte) (int, error) {
		t.Error("the archive was read although there is such an image")
		return 0, io.EOF
	}))
	if !client.IsCode(err, "exists") {
		t.Fatal(err)
	}
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	c, _ = client.New(down.URL, token)
	if _, err := c.Workers(t.Context()); !client.IsCode(err, "unavailable") {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Workers(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, u := range []string{"", "127.0.0.1:1", "ftp://x", "http://"} {
		if _, err := client.New(u, token); !client.IsCode(err, "invalid") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBrokenArchiveMakesNoImage: an archive that can't be read to its end is no image.
func TestBrokenArchiveMakesNoImage(t *testing.T) {
	f := httpapitest.New()
	c := newServer(t, f, nil)
	bad := errors.New("bad sector")
	_, err := c.CreateImage(t.Context(), "site", 1<<30,
		io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)),
			readerFunc(func([]byte) (int, error) { return 0, bad })))
	if !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if images, err := c.Images(t.Context()); err != nil || len(images) != 1 {
		t.Fatalf("%v %v", images, err)
	}
}

func TestWatchSurvivesLostConnections(t *testing.T) {
	f := httpapitest.New()
	var connections atomic.Int32
	c := newServer(t, f, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/watch") {
				switch connections.Add(1) {
				case 2:
					w.WriteHeader(http.StatusBadGateway)
					return
				case 1: // cut off in the middle
					ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
					defer cancel()
					r = r.WithContext(ctx)
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	d, err := c.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	err = c.WatchDrain(t.Context(), d.ID, func(d api.Drain) bool {
		states = append(states, d.State)
		if connections.Load() == 3 && d.State == "running" {
			go f.Update(func(tx *httpapitest.Tx) {
				tx.Drains[fleet.DrainID(d.ID)].Drain.State = fleet.DrainDone
			})
		}
		return true
	})
	if err != nil || strings.Join(states, " ") != "running running drained" ||
		connections.Load() != 3 {
		t.Fatalf("%v after %d connections: %v", states, connections.Load(), err)
	}
	if err := c.WatchDrain(t.Context(), "none",
		func(api.Drain) bool { return true }); !client.IsCode(err, "not_found") {
		t.Fatal(err)
	}
}

func TestFleetFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := client.ReadFleetFile(dir); !client.IsCode(err, "not_found") {
		t.Fatal(err)
	}
	data, _ := json.Marshal(client.FleetFile{URL: "https://x", Token: "t"})
	writeFile(t, dir+"/fleet.json", data)
	if f, err := client.ReadFleetFile(dir); err != nil || f.Token != "t" {
		t.Fatalf("%+v %v", f, err)
	}
	writeFile(t, dir+"/fleet.json", []byte(`{"url":"https://x"}`))
	if _, err := client.ReadFleetFile(dir); !client.IsCode(err, "invalid") {
		t.Fatal(err)
	}
}

// TestUnreachableIsTold has a peer that accepts and says nothing sensible.
func TestForeignServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "<html>welcome</html>")
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	c, err := client.New("http://"+l.Addr().String(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Server(t.Context()); !client.IsCode(err, "unavailable") ||
		!strings.Contains(err.Error(), "no JSON") {
		t.Fatal(err)
	}
}

// TestATokenIsOneLine: a file with several is named as the reason, and not a server that answers
// nothing.
func TestATokenIsOneLine(t *testing.T) {
	if _, err := client.New("https://127.0.0.1:1", " one\n"); err != nil {
		t.Errorf("around it: %v", err)
	}
	for _, token := range []string{"one\ntwo", "one two"} {
		if _, err := client.New("https://127.0.0.1:1", token); !client.IsCode(err, "invalid") {
			t.Errorf("%q: %v", token, err)
		}
	}
}
