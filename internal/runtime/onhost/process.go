package onhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// BootID returns the id of this boot of the host. Pids of another boot mean nothing.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err, "read this host's boot id")
	}
	return strings.TrimSpace(string(b)), nil
}

// StartTicks returns when a process started. A later process with the same pid has another value.
func StartTicks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command may hold spaces and parentheses; what follows its last one is plain.
	stat := string(b)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, errs.New(errs.Internal, "process %d: stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// OpenProcess returns a pidfd of the process that has this pid since startTicks, or nil if it is
// gone. The descriptor is opened before the start time is compared, so that it can't be of a later
// process with the same pid.
func OpenProcess(pid int, startTicks uint64) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "open process %d", pid)
	}
	f := os.NewFile(uintptr(fd), "process "+strconv.Itoa(pid))
	ticks, err := StartTicks(pid)
	if err == nil && ticks == startTicks && !hasEnded(fd) {
		return f, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return nil, errors.Join(err, f.Close())
}

// hasEnded reports whether the process of a pidfd has, even if nobody has waited for it yet.
func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// WaitReadable waits until a pidfd is readable, which is when its process has ended, without
// holding a thread.
func WaitReadable(ctx context.Context, pidfd *os.File, timeout time.Duration) error {
	if err := pidfd.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if ctx.Err() != nil { // the deadline that the end of ctx sets may just have been overwritten
		return ctx.Err()
	}
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		n, pollErr = unix.Poll(fds, 0)
		return n > 0 || pollErr != nil && !errors.Is(pollErr, unix.EINTR)
	})
	return errors.Join(err, pollErr)
}

// Watch waits until the process of a pidfd has ended, and bounds its VM's console meanwhile. It
// calls failed with errors of the latter. ended is false if ctx ends first. It closes the pidfd.
func Watch(ctx context.Context, pidfd *os.File, console Console,
	failed func(error)) (ended bool, err error) {
	defer func() { _ = pidfd.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		err := WaitReadable(ctx, pidfd, ConsoleInterval)
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return false, err
		}
		if err := console.Bound(); err != nil {
			failed(err)
		}
	}
}

// Reap collects an ended process if it is this one's child, and says how it ended.
func Reap(pid int) string {
	var status unix.WaitStatus
	got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
	switch {
	case err != nil || got != pid:
		return "ended; another process has its exit status"
	case status.Signaled():
		return fmt.Sprintf("it was killed by signal %v", status.Signal())
	default:
		return fmt.Sprintf("it exited with status %d", status.ExitStatus())
	}
}
