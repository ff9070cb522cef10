// Package blockd is the process that has a machine's disk: the engine, and the block device over
// it.
//
// Invariants: a process attaches at most one disk, ever. An attach may be repeated; a different one
// is a Conflict. After Close or Abandon nothing is written. It never touches the file
// system on the device, because the kernel may wait for this very process to answer.
package blockd

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config of blockd.
type Config struct {
	Engine Engine
	Show   Show
	Log    *slog.Logger
}

// Server attaches one disk and serves blockapi for it.
type Server struct {
	cfg Config

	// changing is the lock of who changes the attachment. It is a channel, so that a wait for it
	// ends with the caller's context.
	changing chan struct{}

	mu       sync.Mutex
	asked    blockapi.Attach
	disk     Disk
	shown    Shown
	ended    bool            // closed or abandoned, or about to be: it doesn't stop by itself
	steps    []guestapi.Step // of the last attach or close
	parts    []guestapi.Step // of what is being done; see timed
	attached chan struct{}   // closed once disk is set
}

// New returns a server without a disk.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, changing: make(chan struct{}, 1), attached: make(chan struct{})}
}

func (s *Server) lock(ctx context.Context) error {
	select {
	case s.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Server) unlock() { <-s.changing }

// prepare reads ahead what an attach will need. Conflict: a disk is attached.
func (s *Server) prepare(ctx context.Context, store guestapi.StoreAccess) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if s.info().Attached {
		return errs.New(errs.Conflict, "a disk is attached already")
	}
	return s.cfg.Engine.Prepare(ctx, store)
}

// attach attaches the disk and makes it a block device.
func (s *Server) attach(ctx context.Context, a blockapi.Attach) (blockapi.Info, error) {
	if err := s.lock(ctx); err != nil {
		return blockapi.Info{}, err
	}
	defer s.unlock()
	if done, err := s.repeated(a); done || err != nil {
		return s.info(), err
	}
	// A caller that dies must not leave the attach half done; its successor repeats it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachTimeout)
	defer cancel()
	s.beginParts()
	start := time.Now()
	d, err := s.cfg.Engine.Attach(ctx, a, s.timed)
	if err != nil {
		return blockapi.Info{}, err
	}
	opened := time.Now()
	shown, err := s.cfg.Show(ctx, d, path.Base(a.Store.DiskPath))
	if err != nil {
		d.Abandon()
		return blockapi.Info{}, err
	}
	s.mu.Lock()
	s.asked, s.disk, s.shown = a, d, shown
	s.steps = append(s.partsLocked("disk attach"),
		guestapi.Step{Name: "disk attach", Took: opened.Sub(start), Ended: opened},
		stepFrom("block device", opened))
	close(s.attached)
	s.mu.Unlock()
	return s.info(), nil
}

const attachTimeout = 2 * time.Minute

// repeated reports whether this very attach was done before.
func (s *Server) repeated(a blockapi.Attach) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.disk == nil:
		return false, nil
	case s.ended:
		return false, errs.New(errs.Conflict,
			"this VM has given back its disk").WithRemedy("use a fresh VM")
	case s.asked.Store.DiskPath != a.Store.DiskPath || s.asked.Generation != a.Generation ||
		s.asked.Holder != a.Holder:
		return false, errs.New(errs.Conflict, "%s is attached at generation %d",
			s.asked.Store.DiskPath, s.asked.Generation)
	}
	return true, nil
}

// close closes the disk cleanly. If it fails, the disk stays attached, and the caller may try
// again.
func (s *Server) close(ctx context.Context) (blockapi.Info, error) {
	if err := s.lock(ctx); err != nil {
		return blockapi.Info{}, err
	}
	defer s.unlock()
	s.mu.Lock()
	d, shown, ended := s.disk, s.shown, s.ended
	s.mu.Unlock()
	if d == nil || ended {
		return s.info(), nil
	}
	// no deadline: the engine has its own, and a close that is cut off closes nothing
	ctx = context.WithoutCancel(ctx)
	s.beginParts()
	start := time.Now()
	if shown != nil {
		if err := shown.Close(ctx); err != nil {
			return blockapi.Info{}, err
		}
		s.mu.Lock()
		s.shown = nil
		s.mu.Unlock()
	}
	hidden := time.Now()
	s.setEnded(true)
	if err := d.Close(ctx); err != nil {
		s.setEnded(false)
		return blockapi.Info{}, err
	}
	s.mu.Lock()
	s.steps = append(s.partsLocked("disk close"),
		guestapi.Step{Name: "detach block device", Took: hidden.Sub(start), Ended: hidden},
		stepFrom("disk close", hidden))
	s.mu.Unlock()
	return s.info(), nil
}

func (s *Server) setEnded(ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = ended
}

// settle writes out dirty data while the machine still runs.
func (s *Server) settle(ctx context.Context) error {
	d, err := s.current()
	if err != nil {
		return err
	}
	return d.Settle(ctx)
}

// abandon detaches the disk without writing.
func (s *Server) abandon(ctx context.Context) (blockapi.Info, error) {
	s.mu.Lock()
	d, shown := s.disk, s.shown
	s.ended, s.shown = s.disk != nil, nil
	s.mu.Unlock()
	if d == nil {
		return s.info(), nil
	}
	d.Abandon()
	var err error
	if shown != nil {
		err = shown.Close(ctx)
	}
	return s.info(), err
}

func (s *Server) current() (Disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil || s.ended {
		return nil, errs.New(errs.Unavailable, "no disk is attached")
	}
	return s.disk, nil
}

// Disk implements diskapi.Source.
func (s *Server) Disk() (diskapi.Disk, error) { return s.current() }

// AwaitDisk implements diskapi.Source.
func (s *Server) AwaitDisk(ctx context.Context) (diskapi.Disk, error) {
	select {
	case <-s.attached:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk, nil
}

// hold passes on that nobody would notice how long requests take.
func (s *Server) hold(h blockapi.Hold) error {
	s.mu.Lock()
	d := s.disk
	s.mu.Unlock()
	if d != nil {
		d.HoldIO(h.On)
	}
	return nil
}

// awaitStopped returns why the disk has stopped by itself: Fenced, Corrupt or Denied. It doesn't
// return for a disk that was closed.
func (s *Server) awaitStopped(ctx context.Context) error {
	d, err := s.AwaitDisk(ctx)
	if err != nil {
		return err
	}
	select {
	case <-d.Stopped():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return d.Err()
}

func (s *Server) info() blockapi.Info {
	s.mu.Lock()
	d, shown := s.disk, s.shown
	info := blockapi.Info{Attached: d != nil &&
		!s.ended, Path: s.asked.Store.DiskPath,
		Steps: guestapi.TellSteps(s.steps, time.Now())}
	s.mu.Unlock()
	if d == nil {
		return info
	}
	stats := d.Stats()
	info.SizeBytes, info.Description = d.Size(), d.Describe()
	if shown != nil {
		info.Device, info.Description.FrontEnd = shown.BlockDevice(), string(shown.Kind())
	}
	info.Report, info.Flushes = reportOf(stats, info.Description), flushesOf(stats)
	info.Fenced = errs.Is(d.Err(), errs.Fenced)
	info.Stall = blockapi.StallOf(diskapi.StallOf(d))
	return info
}

// Stop abandons the disk when the process is asked to end. The disk is left as by a crash.
func (s *Server) Stop(ctx context.Context) error {
	_, err := s.abandon(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
