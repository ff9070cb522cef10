package host

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const detachLook = 50 * time.Millisecond

// Detach ends all attachments of a disk on this host, or the one on a directory or as a device, and
// returns what they were. Each is waited for, and with force cut off from who uses it.
func Detach(ctx context.Context, reg *attachment.Registry, what string, wait time.Duration,
	force bool) ([]attachment.Record, error) {
	found, err := attachmentsOf(reg, what)
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

func attachmentsOf(reg *attachment.Registry, what string) ([]attachment.Record, error) {
	live, dead, err := reg.List()
	if err != nil {
		return nil, err
	}
	match := what
	if strings.Contains(what, "://") {
		if match, err = CanonicalURL(what); err != nil {
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
		if err := backoff.Sleep(ctx, detachLook); err != nil {
			return err
		}
	}
	return nil
}
