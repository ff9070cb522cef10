package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// run runs NBD servers until ctx ends or the disk has stopped, which is an error.
func (h *held) run(ctx context.Context, servers []*nbd.Server) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		g.Go(func() error { return s.Run(gctx) })
	}
	g.Go(func() error {
		select {
		case <-gctx.Done():
			return nil
		case <-h.fenced():
			return h.writer.Err()
		}
	})
	return g.Wait()
}

const detachLook = 50 * time.Millisecond

func newDiskDetachCommand(d *deps) *cobra.Command {
	var wait time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "detach URL | DIR | DEVICE",
		Short: "End the attachments of a disk on this host",
		Long: `End the attachments of a disk on this host: unmount what is mounted, hang up on NBD
clients, and close the disk. It returns when the processes are gone. A directory in
use keeps its mount, and the command fails after --wait; --force cuts off who uses
it. If a process in the background ends with an error, so does this.
` + exitTable,
		Example: "  sluice disk detach s3://bucket/disks/data\n  sluice disk detach /mnt",
		Args:    exactly("a disk URL, a directory or a block device"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ended, err := d.detach(cmd.Context(), args[0], wait, force)
			if err != nil {
				return err
			}
			return d.result(ended, func(w io.Writer) error {
				for _, r := range ended {
					fmt.Fprintf(w, "%s: detached, process %d has ended\n", r.URL, r.PID)
				}
				return nil
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for it to end")
	cmd.Flags().BoolVar(&force, "force", false, "cut off who uses the directory")
	return cmd
}

// detach ends all attachments of a disk, or the one on a directory.
func (d *deps) detach(ctx context.Context, what string, wait time.Duration,
	force bool) ([]attachment.Record, error) {
	found, err := d.attachmentsOf(what)
	if err != nil {
		return nil, err
	}
	for i := range found {
		if err := endAttachment(ctx, &found[i], wait, force); err != nil {
			return nil, err
		}
	}
	var all error
	for i := range found {
		all = errors.Join(all, endedBadly(&found[i]))
	}
	return found, all
}

// lastWords is how much of a log is looked at for why a process has ended.
const lastWords = 4 << 10

// endedBadly returns why a process in the background has not ended in order, or nil. It has then
// left its log.
func endedBadly(r *attachment.Record) error {
	if r.Log == "" {
		return nil
	}
	f, err := os.Open(r.Log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.Wrap(errs.Denied, err, "look how process %d has ended", r.PID)
	}
	defer f.Close()
	said := make([]byte, lastWords)
	info, err := f.Stat()
	if err == nil {
		var n int
		if n, err = f.ReadAt(said, max(0, info.Size()-lastWords)); errors.Is(err, io.EOF) {
			err = nil
		}
		said = said[:n]
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "look how process %d has ended", r.PID)
	}
	why := "it was killed"
	if at := strings.LastIndex(string(said), "error: "); at >= 0 {
		why, _, _ = strings.Cut(string(said[at+len("error: "):]), "\n")
	}
	return errs.New(errs.Unavailable, "%s is detached, and process %d has not ended in order: %s",
		r.URL, r.PID, why).
		WithRemedy("read its log %s; what was flushed is there when the disk is attached again",
			r.Log)
}

func (d *deps) attachmentsOf(what string) ([]attachment.Record, error) {
	live, dead, err := d.registry().List()
	if err != nil {
		return nil, err
	}
	match := what
	if strings.Contains(what, "://") {
		if match, err = canonicalURL(what); err != nil {
			return nil, err
		}
	} else if abs, err := filepath.Abs(what); err == nil {
		match = abs
	}
	var found []attachment.Record
	for _, r := range live {
		if r.URL == match || r.Mountpoint == match || r.BlockDevice == match {
			found = append(found, r)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	for _, r := range dead {
		if r.URL == match || r.Mountpoint == match || r.BlockDevice == match {
			return nil, errs.New(errs.NotFound,
				"%s is not attached any more: process %d was killed", what, r.PID).
				WithRemedy("attach it again; or unmount what that process has left: umount DIR")
		}
	}
	return nil, errs.New(errs.NotFound, "%s is not attached on this host", what).
		WithRemedy("look where it is: sluice disk info URL")
}

// endAttachment asks a process to end and waits until it has.
func endAttachment(ctx context.Context, r *attachment.Record, wait time.Duration,
	force bool) error {
	begin, forced := time.Now(), false
	if err := r.Process.Signal(unix.SIGTERM); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	for r.Process.Liveness() == attachment.Alive {
		// it may have been killed earlier, and wait for its own device since
		if err := r.Process.Free(); err != nil {
			return err
		}
		if force && !forced && time.Since(begin) > time.Second && r.BlockDevice != "" {
			forced = true
			if err := r.Process.Signal(unix.SIGTERM); err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
		}
		if time.Since(begin) > wait {
			e := errs.New(errs.Unavailable, "%s: process %d has not ended within %v",
				r.URL, r.PID, wait)
			if r.Mountpoint != "" {
				return e.WithRemedy(
					"it ends when %s is not in use any more: look with fuser -vm %s, or use --force", r.Mountpoint, r.Mountpoint)
			}
			return e.WithRemedy(
				"it may be waiting for the object store; try again, or look at its output")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(detachLook):
		}
	}
	return nil
}
