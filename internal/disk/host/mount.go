package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	mountLook = 250 * time.Millisecond // how often a mount is looked after
	busyLook  = 500 * time.Millisecond // how often an unmount of a busy one is tried again
)

// MountDir returns the directory to mount on. What a process that was killed has left mounted there
// is mounted over, since somebody may write there all the time; uncover removes it in the end.
func MountDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err, "directory %s", dir)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	if os.Getuid() == 0 {
		if err := frontend.EndOrphans(); err != nil {
			return "", err
		}
	}
	mount, err := MountAt(abs)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if mount != nil && mount.dead() {
		if mount = nil; err != nil { // such as xfs; mount(8) would have the same error
			if err := uncover(abs, ""); err != nil {
				return "", err
			}
			info, err = os.Stat(abs)
		}
	}
	if mount != nil {
		return "", errs.New(errs.Conflict, "%s is on %s already", mount.Source, abs).
			WithRemedy("choose another directory, or: umount %s", abs)
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", errs.Wrap(errs.NotFound, err, "there is no directory %s", abs).
			WithRemedy("mkdir -p %s", abs)
	}
	if err != nil || !info.IsDir() {
		return "", errs.New(errs.Invalid, "%s is not a directory", abs)
	}
	if os.Getuid() != 0 {
		return "", errs.New(errs.Denied,
			"mounting needs root").WithRemedy("run it by sudo, or use: sluice disk serve")
	}
	return abs, nil
}

func (s *Session) mount(ctx context.Context, dir string) error {
	empty, err := isEmpty(ctx, s.dev)
	if err != nil {
		return err
	}
	options := ext4Options
	switch {
	case empty && s.record.ReadOnly:
		return errs.New(errs.Unsupported, "there is nothing on the disk yet").WithRemedy(
			"mount it without --read-only, which makes a file system")
	case !empty:
		if options, err = mountOptions(ctx, s.dev, s.record.ReadOnly); err != nil {
			return err
		}
	}
	front, err := frontend.Show(ctx, s.dev, s.cfg.FrontEnd,
		frontend.Config{Name: s.name, Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.front = front
	// mount(8) and umount(8) do what this process must not: wait for a device that it serves.
	s.record.Mountpoint, s.record.BlockDevice, s.record.FrontEnd = dir, front.BlockDevice(),
		string(front.Kind())
	if empty {
		fmt.Fprintf(s.deps.Stderr, "%s is empty; making an ext4 file system on it\n", s.ref.URL)
		err = frontend.Mkfs(ctx, front.BlockDevice(), frontend.MkfsOptions{})
	}
	if err == nil {
		err = system(ctx, "mount", "-o", options, front.BlockDevice(), dir)
	}
	if err == nil {
		err = s.announce(ctx, fmt.Sprintf("%s is mounted on %s", s.ref.URL, dir),
			func(ctx context.Context) error {
				return s.untilUnmounted(ctx, front, dir)
			})
	}
	// For nothing, but where a mount was interrupted or could not be recorded.
	err = errors.Join(err, s.unmount(ctx, dir), uncover(dir, front.BlockDevice()))
	return errors.Join(err, front.Close(context.WithoutCancel(ctx)))
}

// untilUnmounted returns when the file system is unmounted: by the user, or by an interrupt. A disk
// that has stopped stays mounted until then too, see outlive.
func (s *Session) untilUnmounted(ctx context.Context, front frontend.Shown, dir string) error {
	tick := time.NewTicker(mountLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.unmount(ctx, dir)
		case <-s.fenced():
			return s.outlive(ctx, dir, s.writer.Err())
		case <-front.Done():
			return s.outlive(ctx, dir, errs.New(errs.Unavailable, "the kernel has given up %s",
				front.BlockDevice()))
		case <-tick.C:
			if there, _, err := isMounted(front.BlockDevice(), dir); err != nil || !there {
				return err
			}
		}
	}
}

// unmount unmounts dir however long it is busy, or, once it is interrupted again, leaves it to
// those who use it until they are done or half a minute is over.
func (s *Session) unmount(ctx context.Context, dir string) error {
	ctx = context.WithoutCancel(ctx)
	again, stop := s.deps.Interrupts()
	defer stop()
	for told := false; ; {
		there, onTop, err := isMounted(s.record.BlockDevice, dir)
		if err != nil || !there {
			return err
		}
		if err = errs.New(errs.Conflict,
			"it is mounted elsewhere too, or below another mount"); onTop {
			if err = system(ctx, "umount", dir); err == nil {
				continue // it may be mounted at a second place
			}
		}
		if !told {
			fmt.Fprintf(s.deps.Stderr,
				"%s is in use, and stays mounted until it isn't: %v\nlook with: fuser -vm %s; interrupt again to cut it off\n", dir, err, dir)
			told = true
		}
		select {
		case <-again:
			return s.tearAway(ctx, dir)
		case <-time.After(busyLook):
		}
	}
}

// tearAway unmounts dir although it is in use.
func (s *Session) tearAway(ctx context.Context, dir string) error {
	if s.writer == nil || s.writer.Err() == nil {
		// What can still be written out, is.
		if err := system(context.WithoutCancel(ctx), "sync", "-f", dir); err != nil {
			fmt.Fprintf(s.deps.Stderr, "%v\n", err)
		}
	}
	if _, onTop, err := isMounted(s.record.BlockDevice, dir); err != nil || !onTop {
		return err
	}
	return system(context.WithoutCancel(ctx), "umount", "--lazy", dir)
}
