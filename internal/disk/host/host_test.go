package host_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	size  = 64 << 20
	limit = 2 * time.Minute // of a wait for something that happens at once
)

// place is a host with a disk in a pool of files.
type place struct {
	dir string
	url string
	reg *attachment.Registry
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{dir: dir, url: "file://" + dir + "/pool/disks/x",
		reg: attachment.Open(filepath.Join(dir, "run"))}
	ref := p.open(t)
	if _, err := disk.Create(t.Context(), ref.Store, ref.Path,
		disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *place) open(t *testing.T) *host.Ref {
	t.Helper()
	ref, err := host.Open(t.Context(), p.url,
		func(s blob.Store, _ string) blob.Store { return s })
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (p *place) config() host.AttachConfig {
	return host.AttachConfig{Registry: p.reg, Logger: slog.New(slog.DiscardHandler),
		Key: func() (disk.KEK, error) { return nil, nil }}
}

// serve runs a session that serves on a socket, and returns its record and what ends it.
func (p *place) serve(t *testing.T, ref *host.Ref) (*attachment.Record, func() error) {
	t.Helper()
	at, err := host.ListenNBD(t.Context(), filepath.Join(p.dir, "nbd"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan *attachment.Record, 1)
	s := host.New(ref, host.Config{AttachConfig: p.config(), Mode: attachment.Serve, NBD: at},
		host.Deps{Stderr: t.Output(), Ready: func(_ string, r *attachment.Record) error {
			ready <- r
			return nil
		}})
	ctx, cancel := context.WithCancel(t.Context())
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx) })
	end := func() error {
		cancel()
		return g.Wait()
	}
	t.Cleanup(func() { _ = end() })
	select {
	case r := <-ready:
		return r, end
	case <-gctx.Done():
		t.Fatal(g.Wait())
	}
	return nil, nil
}

func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// leftovers returns what is in the host's directory of attachments.
func (p *place) leftovers(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dir, "run", "disks", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(p.dir, "nbd")); err == nil {
		found = append(found, "nbd")
	}
	more, err := filepath.Glob(filepath.Join(p.dir, "run", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, more...)
}

// TestSession: what a session serves is asked by its record, nobody else attaches the disk
// meanwhile, and in the end there is a closed disk and nothing else.
func TestSession(t *testing.T) {
	t.Parallel()
	p, ctx := newPlace(t), wait(t)
	r, end := p.serve(t, p.open(t))
	if found, err := host.WriterHere(p.reg, p.url); err != nil || found == nil ||
		found.Control != r.Control {
		t.Fatalf("the writer here is %+v, %v", found, err)
	}
	if s := host.Stats(ctx, r); s == nil || s.Acknowledges != "store" {
		t.Errorf("stats %+v", s)
	}
	if point, err := host.Checkpoint(ctx, r, "monday"); err != nil || point.Name != "monday" {
		t.Errorf("checkpoint %+v, %v", point, err)
	}
	if all, err := host.Client(r).Checkpoints(ctx); err != nil || len(all) != 1 {
		t.Errorf("checkpoints %+v, %v", all, err)
	}
	if err := host.Client(r).Grow(ctx, 2*size); err != nil {
		t.Error(err)
	}
	for _, bad := range []int64{0, -1, size, 2*size + 1, disk.MaxSize + 4096} {
		if err := host.Client(r).Grow(ctx, bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("grow to %d: %v", bad, err)
		}
	}
	other, cfg := p.open(t), p.config()
	_, err := host.Attach(ctx, other, &cfg)
	for _, err := range []error{err, host.Settle(ctx, other, &cfg)} {
		if !errs.Is(err, errs.Conflict) || !strings.Contains(errs.RemedyOf(err), "detach") {
			t.Errorf("attached twice: %v", err)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if left := p.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if host.Stats(ctx, r) != nil {
		t.Error("it answers after its end")
	}
	h, err := disk.ReadHead(ctx, other.Store, other.Path)
	if err != nil || h.State != format.StateClosed || h.Size != 2*size {
		t.Errorf("head %+v, %v", h, err)
	}
}

// TestModeBySocket: a disk becomes bounded and durable again while it is in use, and what makes no
// sense is refused and makes no file.
func TestModeBySocket(t *testing.T) {
	t.Parallel()
	p, ctx := newPlace(t), wait(t)
	r, end := p.serve(t, p.open(t))
	c, file := host.Client(r), filepath.Join(p.dir, "journal")
	for _, bad := range []diskapi.Mode{
		{BoundMS: 1000}, // no journal
		{BoundMS: 1000, Journal: file, JournalSize: "large"},
		{BoundMS: 1000, Journal: file, JournalSize: "-1"},
	} {
		if err := c.SetMode(ctx, bad); !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
			t.Errorf("%+v: %v, want Invalid and a remedy", bad, err)
		}
	}
	if err := c.SetMode(ctx, diskapi.Mode{BoundMS: 1000,
		Journal: filepath.Join(p.dir, "none", "journal")}); err == nil {
		t.Error("a journal in a directory that isn't there")
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("a journal was made for nothing")
	}
	bounded := diskapi.Mode{BoundMS: 1000, Journal: file, JournalSize: "64MiB"}
	if err := c.SetMode(ctx, bounded); err != nil {
		t.Fatal(err)
	}
	if s := host.Stats(ctx, r); s == nil || s.Acknowledges != "journal" {
		t.Errorf("stats %+v", s)
	}
	bounded.Journal = file + "2"
	if err := c.SetMode(ctx, bounded); !errs.Is(err, errs.Conflict) {
		t.Errorf("a second journal: %v", err)
	}
	if err := c.SetMode(ctx, diskapi.Mode{BoundMS: 2000}); err != nil {
		t.Errorf("another bound: %v", err)
	}
	if err := c.SetMode(ctx, diskapi.Mode{}); err != nil {
		t.Errorf("durable: %v", err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// TestSessionThatCannotBegin: who can't be told that it is ready gets no session, and nothing is
// left of it.
func TestSessionThatCannotBegin(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	at, err := host.ListenNBD(t.Context(), filepath.Join(p.dir, "nbd"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := errors.New("the output is closed")
	cfg := host.Config{AttachConfig: p.config(), Mode: attachment.Serve, NBD: at}
	err = host.New(p.open(t), cfg, host.Deps{Stderr: t.Output(),
		Ready: func(string, *attachment.Record) error { return closed }}).Run(wait(t))
	if !errors.Is(err, closed) {
		t.Errorf("run: %v", err)
	}
	if left := p.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestStallBySocket: who asks an attachment is told that its store is away, and that it is back.
func TestStallBySocket(t *testing.T) {
	t.Parallel()
	p, ctx := newPlace(t), wait(t)
	var away atomic.Bool
	store := decorate.Intercept(memblob.New(), func(context.Context, decorate.Op, string) error {
		if away.Load() {
			return errs.New(errs.Unavailable, "the store is away")
		}
		return nil
	})
	if _, err := disk.Create(ctx, store, "disks/x", disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	r, end := p.serve(t, &host.Ref{URL: p.url, Path: "disks/x", Store: store})
	c := host.Client(r)
	away.Store(true)
	var point errgroup.Group
	point.Go(func() error { // needs the store, and waits for it
		_, err := c.Checkpoint(ctx, "monday")
		return err
	})
	s, err := c.AwaitStall(ctx, nil)
	if err != nil || s == nil || s.Kind != errs.Unavailable || s.Remedy == "" {
		t.Fatalf("stall %+v, %v", s, err)
	}
	if stats := host.Stats(ctx, r); stats == nil || stats.Stall == nil {
		t.Errorf("stats %+v", stats)
	}
	away.Store(false)
	for s != nil {
		if s, err = c.AwaitStall(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(point.Wait(), end()); err != nil {
		t.Error(err)
	}
}
