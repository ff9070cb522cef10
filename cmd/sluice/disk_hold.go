package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/host"
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

// session does all of an attachment that lasts, and returns when nothing of it is left. set fills
// in what it is for.
func (d *deps) session(ctx context.Context, url string, f *holdFlags,
	set func(*host.Config) error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // the terminal is closed
	defer stop()
	if err := ioflusher.Become(); err != nil {
		// Whoever writes much through this host's kernel may then hang, as with any server of a
		// device on the same host.
		d.diskLogger().InfoContext(ctx, "this process may have to wait for what it serves", "error",
			err)
	}
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return err
	}
	cfg := host.Config{ReadOnly: f.readOnly, Checkpoint: f.checkpoint, Unpinned: f.noPin,
		FrontEnd: frontend.Kind(f.frontEnd), Log: d.env(backgroundLog)}
	if cfg.AttachConfig, err = d.attachConfig(ref, f.takeOver, f.tuning()); err == nil {
		err = set(&cfg)
	}
	if err != nil {
		return errors.Join(err, ref.Store.Close())
	}
	return host.New(ref.Ref, cfg, host.Deps{Stderr: d.stderr, Interrupts: interrupts,
		Ready: func(text string, r *attachment.Record) error {
			ref.quiet()
			return d.ready(text, r)
		}}).Run(ctx)
}

// ready says on stdout what there is now. The output may be closed later on, without harm.
func (d *deps) ready(text string, r *attachment.Record) error {
	return d.result(r, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

// interrupts returns a channel of interrupts received from now on, and what ends that.
func interrupts() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	return c, func() { signal.Stop(c) }
}
