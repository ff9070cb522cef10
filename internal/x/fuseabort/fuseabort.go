// Package fuseabort gives up FUSE connections. A process that waits in the kernel for a device that
// it serves itself can't be killed in any other way: SIGKILL waits for the device, and the device
// for the process.
package fuseabort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const connectionField = "fuse_connection:" // in /proc/<pid>/fdinfo of a FUSE server

// Connection makes the kernel give up a FUSE connection: its requests fail, its server ends. One
// that is gone already is fine.
func Connection(id uint32) error {
	// A mount of our own in no namespace, because the usual place need not be mounted here.
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen fusectl: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig fusectl: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount fusectl: %w", err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, fmt.Sprintf("%d/abort", id), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("1"))
	return errors.Join(err, unix.Close(fd))
}

// Process gives up every FUSE connection that process pid serves, so that it can die. It returns
// how many there were. A process that is gone has none. It finds them by what the kernel tells in
// fdinfo; kernels that are too old to do so (6.18 does) have none to find.
func Process(pid int) (int, error) {
	// By task, because the main thread may be a zombie already while another one is stuck.
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/fdinfo/*", pid))
	if err != nil {
		return 0, errs.Wrap(errs.Internal, err, "list descriptors of process %d", pid)
	}
	aborted := map[uint32]struct{}{}
	for _, info := range infos {
		text, err := os.ReadFile(info)
		if err != nil {
			continue // closed meanwhile, or its thread has ended
		}
		id, ok := connectionOf(string(text))
		if _, done := aborted[id]; done || !ok {
			continue
		}
		if err := Connection(id); err != nil {
			return len(aborted), errs.Wrap(errs.Unavailable, err, "abort fuse connection %d", id)
		}
		aborted[id] = struct{}{}
	}
	return len(aborted), nil
}

func connectionOf(fdinfo string) (uint32, bool) {
	for line := range strings.Lines(fdinfo) {
		if rest, ok := strings.CutPrefix(line, connectionField); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(rest), 10, 32)
			return uint32(id), err == nil
		}
	}
	return 0, false
}
