package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/ioflusher"
)

// holdFlags are what every attachment that lasts can be told.
type holdFlags struct {
	readOnly   bool
	checkpoint string
	takeOver   bool
	background bool
	noPin      bool

	stallTimeout time.Duration
	frontEnd     string // of a mount; "": auto
}

func (f *holdFlags) validate() error {
	if f.checkpoint != "" && !f.readOnly {
		return usageError("--checkpoint reads a checkpoint: it needs --read-only")
	}
	if f.noPin && !f.readOnly {
		return usageError("--no-pin is for readers: it needs --read-only")
	}
	if f.takeOver && f.readOnly {
		return usageError("--take-over is for writers: readers take nothing over")
	}
	if f.frontEnd == "" {
		f.frontEnd = string(frontend.Auto)
	}
	if _, err := frontend.ParseKind(f.frontEnd); err != nil {
		return err
	}
	return f.validateStall()
}

// args returns the flags as arguments, for a process that is to do the same in the background.
func (f *holdFlags) args() []string {
	var a []string
	if f.readOnly {
		a = append(a, "--read-only")
	}
	if f.checkpoint != "" {
		a = append(a, "--checkpoint", f.checkpoint)
	}
	if f.noPin {
		a = append(a, "--no-pin")
	}
	if f.takeOver {
		a = append(a, "--take-over")
	}
	if f.frontEnd != "" && f.frontEnd != string(frontend.Auto) {
		a = append(a, "--frontend", f.frontEnd)
	}
	return append(a, "--stall-timeout", f.stallTimeout.String())
}

// held is a disk that this process has open for as long as somebody wants it.
type held struct {
	d      *deps
	ref    *diskRef
	dev    disk.Device
	name   string      // for listings of the kernel and of NBD
	writer *diskWriter // nil: read-only
	record attachment.Record

	frontEnd frontend.Kind  // of a mount
	front    frontend.Shown // nil: no block device shows it
}

// hold opens a disk as the flags say.
func (d *deps) hold(ctx context.Context, url string, mode attachment.Mode,
	f *holdFlags) (*held, error) {
	if err := ioflusher.Become(); err != nil {
		// Whoever writes much through this host's kernel may then hang, as with any server of a
		// device on the same host.
		d.diskLogger().InfoContext(ctx, "this process may have to wait for what it serves", "error",
			err)
	}
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return nil, err
	}
	h := &held{d: d, ref: ref, name: lastPart(ref.path), frontEnd: frontend.Kind(f.frontEnd),
		record: attachment.Record{URL: ref.url, Mode: mode, ReadOnly: f.readOnly,
			Checkpoint: f.checkpoint, StartedAt: time.Now().UTC().Truncate(time.Millisecond)}}
	if h.record.Process, err = attachment.Self(); err == nil {
		h.record.PID, h.record.Holder = h.record.Process.PID, h.record.Process.Holder()
		err = h.open(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(err, ref.store.Close())
	}
	return h, nil
}

func (h *held) open(ctx context.Context, f *holdFlags) error {
	if f.readOnly {
		key, err := h.d.diskKey()
		if err != nil {
			return err
		}
		ro, err := disk.OpenReadOnly(ctx, h.ref.store, h.ref.path, f.checkpoint,
			disk.ReadOnlyOptions{Key: key, Tuning: f.tuning(),
				Holder: h.record.Holder, Unpinned: f.noPin})
		if err != nil {
			return h.d.explainMissing(ctx, h.ref, err)
		}
		h.dev = ro
		return nil
	}
	w, err := h.d.attachTuned(ctx, h.ref, f.takeOver, f.tuning())
	if err != nil {
		return err
	}
	head := w.Head()
	h.dev, h.writer = w.Disk, w
	h.record.Generation, h.record.Epoch = head.Generation, head.Epoch
	return nil
}

// fenced is closed when the disk has stopped for good. A reader's never is.
func (h *held) fenced() <-chan struct{} {
	if h.writer == nil {
		return nil
	}
	return h.writer.Stopped()
}

// close ends everything that hold has begun. why is what else has gone wrong, if anything.
func (h *held) close(ctx context.Context, why error) error {
	var err error
	switch dev := h.dev.(type) {
	case *disk.ReadOnly:
		err = dev.Close()
	case *disk.Disk:
		err = h.writer.close(ctx)
	}
	if errs.Is(err, errs.Fenced) {
		err = errs.Wrap(errs.Fenced, err,
			"disk %s was taken over; what was not flushed by then is lost", h.ref.url).
			WithRemedy("look where it is now: sluice disk info %s", h.ref.url)
	}
	return errors.Join(why, err, h.ref.store.Close())
}

// announce records the attachment, says that it is ready, and takes commands until ctx ends or
// serve returns, which does the attachment's own work. The record lasts as long.
func (h *held) announce(ctx context.Context, text string,
	serve func(ctx context.Context) error) (err error) {
	reg := h.d.registry()
	if err := reg.Prepare(); err != nil {
		return err
	}
	h.record.Log = h.d.env(backgroundLog)
	defer func() { err = errors.Join(err, reg.Remove(&h.record)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	if h.writer != nil {
		h.record.Control = reg.ControlPath(&h.record)
		control, err := diskapi.Listen(gctx, h.record.Control,
			diskapi.Handler(diskapi.Attached(&answering{Disk: h.writer.Disk, h: h})))
		if err != nil {
			return err
		}
		g.Go(func() error {
			if err := control.Run(gctx); err != nil { // no reason to take the disk away from who uses it
				fmt.Fprintf(h.d.stderr,
					"commands such as disk checkpoint are not taken any more: %v\n", err)
			}
			return nil
		})
	}
	h.ref.quiet()
	if err = reg.Put(&h.record); err == nil {
		err = h.ready(text)
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

// ready says on stdout what there is now. The output may be closed later on, without harm.
func (h *held) ready(text string) error {
	return h.d.result(h.record, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

func lastPart(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return name[:min(len(name), 48)]
}

// answering is the disk of an attachment as others ask it.
type answering struct {
	*disk.Disk
	h *held
}

// Checkpoints implements diskapi.Disk.
func (a *answering) Checkpoints(ctx context.Context) ([]*format.Checkpoint, error) {
	return disk.ListCheckpoints(ctx, a.h.ref.store, a.h.ref.path)
}

// SetMode implements diskapi.Changer.
func (a *answering) SetMode(ctx context.Context, m diskapi.Mode) error {
	return a.h.writer.setBound(ctx, m)
}

// Grow implements diskapi.Changer.
func (a *answering) Grow(ctx context.Context, size int64) error { return a.h.grow(ctx, size) }
