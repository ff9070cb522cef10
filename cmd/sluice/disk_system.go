package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// systemWait is what a system tool gets between being told to end and being ended.
const systemWait = 5 * time.Second

// system runs a tool of the operating system. An interrupt of this command doesn't reach it.
func (d *deps) system(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = systemWait
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errs.Wrap(errs.Unsupported, err, "run %s", name).
			WithRemedy("install util-linux and coreutils")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errs.Wrap(errs.Unavailable, err, "%s: %s", name, strings.TrimSpace(stderr.String()))
}

// interrupts counts from now on.
func interrupts() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	return c, func() { signal.Stop(c) }
}

// ext4Options are what an ext4 is mounted with to be written.
const ext4Options = "rw,noatime,errors=remount-ro"

// isEmpty reports whether a disk has no content at all: it was never written, or all of it was
// discarded.
func isEmpty(ctx context.Context, dev disk.Device) (bool, error) {
	x, ok := dev.(disk.Extents)
	if !ok {
		return false, nil
	}
	for off := int64(0); off < dev.Size(); {
		end, data, err := x.NextExtent(ctx, off, dev.Size())
		if data || err != nil {
			return false, err
		}
		off = end
	}
	return true, nil
}

// mountOptions looks at what file system a disk holds and returns the options to mount it with.
func mountOptions(ctx context.Context, dev disk.Device, readOnly bool) (string, error) {
	head := make([]byte, min(dev.Size(), 128<<10))
	if err := dev.ReadAt(ctx, head, 0); err != nil {
		return "", err
	}
	mode := "rw,noatime"
	if readOnly {
		mode = "ro"
	}
	has := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case has(0x438, "\x53\xef") && readOnly:
		return mode + ",noload", nil // a journal can't be replayed into what is read-only
	case has(0x438, "\x53\xef"):
		return ext4Options, nil
	case has(0, "XFSB") && readOnly:
		return mode + ",norecovery,nouuid", nil
	case has(0, "XFSB"):
		return mode + ",nouuid", nil // a fork has its parent's
	case has(0x10040, "_BHRfS_M"):
		return mode, nil
	case has(510, "\x55\xaa") && binary.LittleEndian.Uint32(head[454:]) != 0, has(512, "EFI PART"):
		return "", errs.New(errs.Unsupported, "the disk is partitioned").
			WithRemedy(
				"serve it, and attach that with: qemu-nbd or nbd-client; or start a machine from it")
	}
	return "", errs.New(errs.Unsupported,
		"there is no file system on the disk that could be mounted").
		WithRemedy(
			"make one where the disk is attached (sluice disk attach); or make a new disk, which gets one when it is mounted")
}

// mounted is one mount of this mount namespace.
type mounted struct {
	dir    string
	source string
	device string // major:minor
}

// mounts returns all mounts, in the order of their making. It touches no directory, which a dead
// device might make wait.
func mounts() ([]mounted, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "read the mounts")
	}
	var all []mounted
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(info)) {
		head, tail, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(head), strings.Fields(tail)
		if ok && len(f) >= 5 && len(s) >= 2 {
			all = append(all, mounted{dir: unescape.Replace(f[4]), source: s[1], device: f[2]})
		}
	}
	return all, nil
}

// mountAt returns what is mounted on dir, the uppermost, or nil.
func mountAt(dir string) (*mounted, error) {
	all, err := mounts()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].dir == dir {
			return &all[i], nil
		}
	}
	return nil, err
}

// isMounted reports whether a block device is mounted anywhere, and whether it is the uppermost on
// dir.
func isMounted(source, dir string) (anywhere, onTop bool, err error) {
	all, err := mounts()
	for _, m := range all {
		anywhere = anywhere || m.source == source
		if m.dir == dir {
			onTop = m.source == source
		}
	}
	return anywhere, onTop, err
}

// dead reports whether a mount is of a block device of ours that nobody serves any more.
func (m *mounted) dead() bool {
	if !frontend.IsOurs(m.device) {
		return false
	}
	f, err := os.OpenFile(m.source, os.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	// aligned
	block, err := unix.Mmap(-1, 0, disk.BlockSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(block) }()
	_, err = f.ReadAt(block, 0)
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENXIO) ||
		errors.Is(err, syscall.ENOTCONN)
}
