package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	mountLook = 250 * time.Millisecond // how often a mount is looked after
	busyLook  = 500 * time.Millisecond // how often an unmount of a busy one is tried again
)

func newDiskMountCommand(d *deps) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use:   "mount URL DIR",
		Short: "Mount the file system of a disk on a directory",
		Long: `Mount the file system of a disk on a directory, for as long as this command runs: an
interrupt or SIGTERM, or umount DIR, unmounts it and closes the disk. If the disk
stops by itself, as when another host takes it over, the mount stays and gives I/O
errors until somebody does that, so that nothing is written into the directory
beneath. The same is left on DIR by a process that was killed. What was fsynced is
in the store, whatever happens to this host; of a disk of mode bounded it may for a
moment be in its journal only.

A disk on which nothing was ever written gets an ext4 file system first. Any other
content is left as it is.

A disk has one writer. One that is attached elsewhere is refused; --take-over cuts
the other one off, and is for writers that are gone for good. What a process of this
host has left behind when it was killed is taken over without asking. With
--read-only any number of hosts mount a disk as it was at a checkpoint, or at its
newest map, while another writes it. Needs root.
` + stallHelp + journalHelp + keyHelp + exitTable,
		Example: `  sluice disk mount s3://bucket/disks/data /mnt
  sluice disk mount file:///srv/pool/disks/data /mnt --background
  sluice disk mount s3://bucket/disks/data /mnt --read-only --checkpoint monday`,
		Args: exactly("a disk URL", "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.validate(), d.journal.validate(f.readOnly)); err != nil {
				return err
			}
			dir, err := mountDir(args[1])
			if err != nil {
				return err
			}
			if f.background {
				return d.inBackground(cmd.Context(), args[0],
					append(append([]string{"disk", "mount", args[0], dir}, f.args()...),
						d.holdArgs()...))
			}
			return d.behind(cmd.Context(),
				func(ctx context.Context) error { return d.mountDisk(ctx, args[0], dir, &f) })
		},
	}
	addHoldFlags(cmd, &f)
	addFrontEndFlag(cmd, &f)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

func addFrontEndFlag(cmd *cobra.Command, f *holdFlags) {
	cmd.Flags().StringVar(&f.frontEnd, "frontend", string(frontend.Auto),
		"how the kernel gets the disk: fuse, nbd (its own client, module nbd), or auto, which is fuse")
}

func addHoldFlags(cmd *cobra.Command, f *holdFlags) {
	cmd.Flags().BoolVar(&f.readOnly, "read-only", false,
		"read the disk as its newest map, or --checkpoint, has it")
	cmd.Flags().BoolVar(&f.noPin, "no-pin", false,
		"with --read-only: write nothing to the store, though a collector may delete what is read")
	cmd.Flags().StringVar(&f.checkpoint, "checkpoint", "",
		"the checkpoint to read, with --read-only")
	cmd.Flags().BoolVar(&f.takeOver, "take-over", false,
		"cut off another writer, which must be gone for good")
	cmd.Flags().DurationVar(&f.stallTimeout, "stall-timeout", defaultStallTimeout,
		"how long who uses the disk waits for the store before an I/O error; 0: for ever")
	cmd.Flags().BoolVar(&f.background, "background", false, backgroundHelp)
}

// mountDir returns the directory to mount on. What a process that was killed has left mounted there
// is mounted over, since somebody may write there all the time; uncover removes it in the end.
func mountDir(dir string) (string, error) {
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
	mount, err := mountAt(abs)
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
		return "", errs.New(errs.Conflict, "%s is on %s already", mount.source, abs).
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

// mountDisk does all of disk mount, and returns when nothing of it is left.
func (d *deps) mountDisk(ctx context.Context, url, dir string, f *holdFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // the terminal is closed
	defer stop()
	h, err := d.hold(ctx, url, attachment.Mount, f)
	if err != nil {
		return err
	}
	return h.close(ctx, h.mount(ctx, dir))
}

func (h *held) mount(ctx context.Context, dir string) error {
	empty, err := isEmpty(ctx, h.dev)
	if err != nil {
		return err
	}
	options := ext4Options
	switch {
	case empty && h.record.ReadOnly:
		return errs.New(errs.Unsupported, "there is nothing on the disk yet").WithRemedy(
			"mount it without --read-only, which makes a file system")
	case !empty:
		if options, err = mountOptions(ctx, h.dev, h.record.ReadOnly); err != nil {
			return err
		}
	}
	front, err := frontend.Show(ctx, h.dev, h.frontEnd,
		frontend.Config{Name: h.name, Logger: h.d.diskLogger()})
	if err != nil {
		return err
	}
	h.front = front
	// mount(8) and umount(8) do what this process must not: wait for a device that it serves.
	h.record.Mountpoint, h.record.BlockDevice, h.record.FrontEnd = dir, front.BlockDevice(),
		string(front.Kind())
	if empty {
		fmt.Fprintf(h.d.stderr, "%s is empty; making an ext4 file system on it\n", h.ref.url)
		err = frontend.Mkfs(ctx, front.BlockDevice(), frontend.MkfsOptions{})
	}
	if err == nil {
		err = h.d.system(ctx, "mount", "-o", options, front.BlockDevice(), dir)
	}
	if err == nil {
		err = h.announce(ctx, fmt.Sprintf("%s is mounted on %s", h.ref.url, dir),
			func(ctx context.Context) error {
				return h.untilUnmounted(ctx, front, dir)
			})
	}
	// For nothing, but where a mount was interrupted or could not be recorded.
	err = errors.Join(err, h.unmount(ctx, dir), uncover(dir, front.BlockDevice()))
	return errors.Join(err, front.Close(context.WithoutCancel(ctx)))
}

// untilUnmounted returns when the file system is unmounted: by the user, or by an interrupt. A disk
// that has stopped stays mounted until then too, see outlive.
func (h *held) untilUnmounted(ctx context.Context, front frontend.Shown, dir string) error {
	tick := time.NewTicker(mountLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return h.unmount(ctx, dir)
		case <-h.fenced():
			return h.outlive(ctx, dir, h.writer.Err())
		case <-front.Done():
			return h.outlive(ctx, dir, errs.New(errs.Unavailable, "the kernel has given up %s",
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
func (h *held) unmount(ctx context.Context, dir string) error {
	ctx = context.WithoutCancel(ctx)
	again, stop := interrupts()
	defer stop()
	for told := false; ; {
		there, onTop, err := isMounted(h.record.BlockDevice, dir)
		if err != nil || !there {
			return err
		}
		if err = errs.New(errs.Conflict,
			"it is mounted elsewhere too, or below another mount"); onTop {
			if err = h.d.system(ctx, "umount", dir); err == nil {
				continue // it may be mounted at a second place
			}
		}
		if !told {
			fmt.Fprintf(h.d.stderr,
				"%s is in use, and stays mounted until it isn't: %v\nlook with: fuser -vm %s; interrupt again to cut it off\n", dir, err, dir)
			told = true
		}
		select {
		case <-again:
			return h.tearAway(ctx, dir)
		case <-time.After(busyLook):
		}
	}
}

// tearAway unmounts dir although it is in use.
func (h *held) tearAway(ctx context.Context, dir string) error {
	if h.writer == nil || h.writer.Err() == nil {
		// What can still be written out, is.
		if err := h.d.system(context.WithoutCancel(ctx), "sync", "-f", dir); err != nil {
			fmt.Fprintf(h.d.stderr, "%v\n", err)
		}
	}
	if _, onTop, err := isMounted(h.record.BlockDevice, dir); err != nil || !onTop {
		return err
	}
	return h.d.system(context.WithoutCancel(ctx), "umount", "--lazy", dir)
}
