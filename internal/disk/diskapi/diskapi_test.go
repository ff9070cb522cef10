package diskapi_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	size  = 64 << 20
	limit = 2 * time.Minute // of a wait for something that happens at once
)

// realDisk is an attached disk that lists its checkpoints, and takes no changes.
type realDisk struct {
	*disk.Disk
	store blob.Store
}

func (d *realDisk) Checkpoints(ctx context.Context) ([]*format.Checkpoint, error) {
	return disk.ListCheckpoints(ctx, d.store, "disks/x")
}

// changes is one that takes them.
type changes struct {
	*realDisk
	mode          diskapi.Mode  // the last that was asked for
	entered, goOn chan struct{} // not nil: to grow waits in between
	late          chan error    // gets what growing has come to
}

func (c *changes) SetMode(_ context.Context, m diskapi.Mode) error {
	c.mode = m
	return nil
}

func (c *changes) Grow(ctx context.Context, size int64) error {
	if c.entered == nil {
		return c.Disk.Grow(ctx, size)
	}
	close(c.entered)
	<-c.goOn
	err := errors.Join(ctx.Err(), c.Disk.Grow(ctx, size))
	c.late <- err
	return err
}

func attach(t *testing.T, store blob.Store) *realDisk {
	t.Helper()
	if _, err := disk.Create(t.Context(), store, "disks/x",
		disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(t.Context(), store, "disks/x", disk.AttachOptions{Generation: 1,
		Holder: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return &realDisk{Disk: d, store: store}
}

// serve answers on a socket, below a prefix, until the test ends, and returns the socket.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	s, err := diskapi.Listen(t.Context(), socket, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return socket
}

func client(t *testing.T, socket, prefix string) *diskapi.Client {
	t.Helper()
	return diskapi.NewClient(diskapi.NewCaller(diskapi.CallerConfig{Socket: socket,
		Who: "process 12, which has the disk", Once: true}), prefix)
}

func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatADiskAnswers(t *testing.T) {
	d := &changes{realDisk: attach(t, memblob.New())}
	// as blockd mounts it, beside calls of its own
	mux := http.NewServeMux()
	mux.Handle(diskapi.PathDisk+"/",
		http.StripPrefix(diskapi.PathDisk, diskapi.Handler(diskapi.Attached(d))))
	c, ctx := client(t, serve(t, mux), diskapi.PathDisk), wait(t)
	if err := errors.Join(d.WriteAt(ctx, make([]byte, 8192), 4096), d.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats(ctx)
	if err != nil || s.Writes != 1 || s.WriteBytes != 8192 || s.Flushes != 1 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if all, err := c.Checkpoints(ctx); err != nil || all == nil || len(all) != 0 {
		t.Errorf("checkpoints %v, %v, want an empty list", all, err)
	}
	p, err := c.Checkpoint(ctx, "monday")
	if err != nil || p.Name != "monday" || p.CreatedAt.IsZero() {
		t.Errorf("checkpoint %+v, %v", p, err)
	}
	all, err := c.Checkpoints(ctx)
	if err != nil || len(all) != 1 || !all[0].CreatedAt.Equal(p.CreatedAt) {
		t.Errorf("checkpoints %+v, %v", all, err)
	}
}

func TestBadNamesOfCheckpoints(t *testing.T) {
	d := attach(t, memblob.New())
	c, ctx := client(t, serve(t, diskapi.Handler(diskapi.Attached(d))), ""), wait(t)
	if _, err := c.Checkpoint(ctx, "monday"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Checkpoint(ctx, "monday"); !errs.Is(err, errs.Exists) {
		t.Errorf("the same name again: %v", err)
	}
	for _, name := range []string{"", ".", "..", "../stats", "a/b", "a b", "a?b", "a%2Fb",
		strings.Repeat("x", 129)} {
		_, err := c.Checkpoint(ctx, name)
		if !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
			t.Errorf("checkpoint %q: %v, want Invalid and a remedy", name, err)
		}
	}
	if all, err := c.Checkpoints(ctx); err != nil || len(all) != 1 {
		t.Errorf("checkpoints %+v, %v", all, err)
	}
}

func TestChanges(t *testing.T) {
	d := &changes{realDisk: attach(t, memblob.New())}
	c, ctx := client(t, serve(t, diskapi.Handler(diskapi.Attached(d))), ""), wait(t)
	want := diskapi.Mode{BoundMS: 250, Journal: "/j", JournalSize: "64MiB"}
	if err := c.SetMode(ctx, want); err != nil || d.mode != want {
		t.Errorf("asked for %+v, %v; want %+v", d.mode, err, want)
	}
	if err := c.Grow(ctx, 2*size); err != nil || d.Size() != 2*size {
		t.Errorf("size %d, %v", d.Size(), err)
	}
	if err := c.Grow(ctx, size); !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
		t.Errorf("shrunk: %v", err)
	}
}

// TestChangeOutlivesWhoAsked: who asks gives up, and the change is made all the same.
func TestChangeOutlivesWhoAsked(t *testing.T) {
	d := &changes{realDisk: attach(t, memblob.New()), entered: make(chan struct{}),
		goOn: make(chan struct{}), late: make(chan error, 1)}
	h, asked := diskapi.Handler(diskapi.Attached(d)), make(chan context.Context, 1)
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == diskapi.PathSize {
			asked <- r.Context()
		}
		h.ServeHTTP(w, r)
	}))
	c, ctx := client(t, socket, ""), wait(t)
	impatient, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return c.Grow(impatient, 2*size) })
	<-d.entered
	if _, err := c.Stats(ctx); err != nil { // another is answered meanwhile
		t.Error(err)
	}
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	<-(<-asked).Done() // it is seen that they have gone
	close(d.goOn)
	if err := <-d.late; err != nil || d.Size() != 2*size {
		t.Errorf("size %d, %v", d.Size(), err)
	}
}
