// Package ioflusher marks processes that the kernel needs to write out dirty memory: those that
// serve a block device or a store. Such a process must never wait for that very memory.
//
// A thread that is marked (PR_SET_IO_FLUSHER, Linux 5.6) allocates memory without starting I/O, and
// without waiting for any. It is throttled only by what it writes to itself, and not by what others
// have dirtied. Threads and processes that it makes inherit the mark, over exec too.
package ioflusher

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Become marks all threads of this process, those to come included. Unsupported: the kernel is
// older than 5.6, this program was linked with cgo, or it lacks CAP_SYS_RESOURCE; nothing was
// changed then.
func Become() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	return explain(errno, "mark this process as one that writes out memory")
}

// Leave takes the mark from the calling thread alone, which must be locked to its goroutine and
// about to exec a program that isn't to inherit it. Without CAP_SYS_RESOURCE no mark can be there,
// and nothing is done.
func Leave() error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 0, 0, 0, 0, 0)
	if errno == unix.EPERM || errno == unix.EINVAL {
		return nil
	}
	return explain(errno, "take a thread's mark as one that writes out memory")
}

// Is reports whether the calling thread is marked; false where that can't be told.
func Is() bool {
	on, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0, 0)
	return errno == 0 && on == 1
}

func explain(errno syscall.Errno, what string) error {
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.EPERM):
		return errs.Wrap(errs.Unsupported, errno, "%s", what).
			WithRemedy("run it as root, or with CAP_SYS_RESOURCE")
	case errors.Is(errno, unix.EINVAL):
		return errs.Wrap(errs.Unsupported, errno, "%s", what).WithRemedy("use Linux 5.6 or newer")
	}
	return errs.Wrap(errs.Unsupported, errno, "%s", what)
}
