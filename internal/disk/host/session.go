package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config says what a session is.
type Config struct {
	AttachConfig
	Mode       attachment.Mode
	ReadOnly   bool
	Checkpoint string // to read; "": the newest map
	Unpinned   bool   // of a reader
	Log        string // file of a session in the background

	FrontEnd frontend.Kind // of mounts and devices
	Dir      string        // of a mount, as MountDir has it
	NBD      NBD           // of a server
}

// Deps are what a session uses of the process that it is in.
type Deps struct {
	Stderr io.Writer // gets what somebody has to know, or do, meanwhile
	// Ready is called once, with what there is then in words and as a record.
	Ready func(text string, r *attachment.Record) error
	// Interrupts returns a channel of interrupts received from now on, and what ends that.
	Interrupts func() (<-chan os.Signal, func())
}

// Session is a disk that this process has open for as long as somebody wants it.
type Session struct {
	ref  *Ref
	cfg  Config
	deps Deps

	dev    disk.Device
	name   string  // for listings of the kernel and of NBD
	writer *Writer // nil: read-only
	record attachment.Record
	front  frontend.Shown // nil: no block device shows it
}

// New returns a session of a disk, whose store it closes in the end. Run does the rest.
func New(ref *Ref, cfg Config, deps Deps) *Session {
	return &Session{ref: ref, cfg: cfg, deps: deps, name: Name(ref.Path),
		record: attachment.Record{URL: ref.URL, Mode: cfg.Mode, ReadOnly: cfg.ReadOnly,
			Checkpoint: cfg.Checkpoint, Log: cfg.Log}}
}

// Run opens the disk, shows it, and takes commands until ctx ends or what shows it does. It returns
// when nothing of it is left but what an error names.
func (s *Session) Run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return errors.Join(err, s.cfg.NBD.close(), s.ref.Store.Close())
	}
	var err error
	switch s.cfg.Mode {
	case attachment.Mount:
		err = s.mount(ctx, s.cfg.Dir)
	case attachment.Device:
		err = s.device(ctx)
	case attachment.Serve:
		err = s.serve(ctx)
	}
	return s.close(ctx, err)
}

func (s *Session) open(ctx context.Context) (err error) {
	s.record.StartedAt = time.Now().UTC().Truncate(time.Millisecond)
	if s.record.Process, err = attachment.Self(); err != nil {
		return err
	}
	s.record.PID, s.record.Holder = s.record.Process.PID, s.record.Process.Holder()
	if s.cfg.ReadOnly {
		key, err := s.cfg.Key()
		if err != nil {
			return err
		}
		ro, err := disk.OpenReadOnly(ctx, s.ref.Store, s.ref.Path, s.cfg.Checkpoint,
			disk.ReadOnlyOptions{Key: key, Tuning: s.cfg.Tuning,
				Holder: s.record.Holder, Unpinned: s.cfg.Unpinned})
		if err != nil {
			return s.ref.Explain(ctx, err)
		}
		s.dev = ro
		return nil
	}
	w, err := Attach(ctx, s.ref, &s.cfg.AttachConfig)
	if err != nil {
		return err
	}
	head := w.Head()
	s.dev, s.writer = w.Disk, w
	s.record.Generation, s.record.Epoch = head.Generation, head.Epoch
	return nil
}

// fenced is closed when the disk has stopped for good. A reader's never is.
func (s *Session) fenced() <-chan struct{} {
	if s.writer == nil {
		return nil
	}
	return s.writer.Stopped()
}

// close ends everything that open has begun. why is what else has gone wrong, if anything.
func (s *Session) close(ctx context.Context, why error) error {
	var err error
	switch dev := s.dev.(type) {
	case *disk.ReadOnly:
		err = dev.Close()
	case *disk.Disk:
		err = s.writer.Close(ctx)
	}
	if errs.Is(err, errs.Fenced) {
		err = errs.Wrap(errs.Fenced, err,
			"disk %s was taken over; what was not flushed by then is lost", s.ref.URL).
			WithRemedy("look where it is now: sluice disk info %s", s.ref.URL)
	}
	return errors.Join(why, err, s.ref.Store.Close())
}

// announce records the attachment, says that it is ready, and takes commands until ctx ends or
// serve returns, which does the attachment's own work. The record lasts as long.
func (s *Session) announce(ctx context.Context, text string,
	serve func(ctx context.Context) error) (err error) {
	reg := s.cfg.Registry
	if err := reg.Prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Remove(&s.record)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	if s.writer != nil {
		s.record.Control = reg.ControlPath(&s.record)
		control, err := diskapi.Listen(gctx, s.record.Control,
			diskapi.Handler(diskapi.Attached(&answering{Writer: s.writer, session: s})))
		if err != nil {
			return err
		}
		g.Go(func() error {
			if err := control.Run(gctx); err != nil {
				// no reason to take the disk away from who uses it
				fmt.Fprintf(s.deps.Stderr,
					"commands such as disk checkpoint are not taken any more: %v\n", err)
			}
			return nil
		})
	}
	if err = reg.Put(&s.record); err == nil {
		err = s.deps.Ready(text, &s.record)
	}
	if err != nil {
		cancel()
		return errors.Join(err, g.Wait())
	}
	g.Go(func() error {
		defer cancel()
		return serve(gctx)
	})
	return g.Wait()
}

// answering is the writer of a session as others ask it.
type answering struct {
	*Writer
	session *Session
}

// Grow implements diskapi.Changer.
func (a *answering) Grow(ctx context.Context, size int64) error { return a.session.grow(ctx, size) }
