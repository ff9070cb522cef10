// Package ownsync makes sync(2) of a container mean the container's own file system.
//
// The kernel's own sync writes out every file system there is, one after the other. Where
// containers share a kernel it waits for all disks of all of them: if one has stalled, each sync on
// the host hangs with it, and can't be killed. So the calls of a container go to a Server inside it
// instead, which writes out one file system, and lets them return.
//
// Invariants: a call returns success only once a write-out has ended that began after the call. A
// killed caller stops waiting at once. At most one write-out runs at a time, however many call. No
// other system call is affected, not even syncfs and fsync.
package ownsync

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Filter runs start on a thread of its own under the filter. Calls of sync by its children, and by
// all their descendants, wait at the listener for a Server. A child gets the listener as one of its
// files; Filter closes it when start returns. Needs CAP_SYS_ADMIN, and affects nothing else in this
// process.
//
// Once nobody has the listener open, such calls fail with ENOSYS, an error that sync can't return.
func Filter(start func(listener *os.File) error) error {
	return filter(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, start)
}

// filter has the flag for tests: as it is on kernels that don't know it.
func filter(flag uintptr, start func(listener *os.File) error) error {
	var g errgroup.Group
	g.Go(func() error {
		// never unlocked: the thread, and the filter on it, end with this function
		runtime.LockOSThread()
		listener, err := install(flag)
		if err != nil {
			return err
		}
		defer listener.Close()
		return start(listener)
	})
	return g.Wait()
}

// install puts the calling thread under the filter. With the flag a call that a Server has taken
// ends early only for a signal that kills. Linux before 5.19 lacks it; there any signal with a
// handler that doesn't restart calls does, and such a program takes for written what isn't yet.
func install(flag uintptr) (*os.File, error) {
	code := program()
	prog := unix.SockFprog{Len: uint16(len(code)),
		Filter: &code[0]} //nolint:gosec // a few instructions
	load := func(flags uintptr) (uintptr, unix.Errno) {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|flags,
			uintptr(unsafe.Pointer(&prog))) //nolint:gosec // no other way
		return fd, errno
	}
	fd, errno := load(flag)
	if errno == unix.EINVAL {
		fd, errno = load(0)
	}
	runtime.KeepAlive(code)
	switch {
	case errno == 0:
		return os.NewFile(fd, "sync listener"), nil
	case errors.Is(errno, unix.EBUSY):
		return nil, errs.Wrap(errs.Unsupported, errno,
			"send sync of a container to its own file system").
			WithRemedy(
				"run this outside of a container whose manager intercepts system calls: there can be one only")
	}
	return nil, errs.Wrap(errs.Unsupported, errno,
		"send sync of a container to its own file system").
		WithRemedy("run as root, on a kernel with CONFIG_SECCOMP_FILTER")
}

// call is a system call as one kind of program makes it.
type call struct{ arch, number uint32 }

// x32 marks the calls of programs with 32-bit pointers in 64-bit mode.
const x32 = 0x40000000

// syncs are the call numbers of sync, one per kind of program.
func syncs() []call {
	return []call{
		{unix.AUDIT_ARCH_X86_64, 162}, {unix.AUDIT_ARCH_X86_64, x32 | 162},
		{unix.AUDIT_ARCH_I386, 36},
		{unix.AUDIT_ARCH_AARCH64, 81}, {unix.AUDIT_ARCH_ARM, 36},
	}
}

// program returns a filter that tests nothing but the call's number. The kernel then records once
// which other calls it allows, and never runs it for those.
func program() []unix.SockFilter {
	const (
		numberAt, archAt = 0, 4 // in the kernel's struct seccomp_data
		load             = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual          = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give             = unix.BPF_RET | unix.BPF_K
	)
	var code []unix.SockFilter
	for _, c := range syncs() {
		code = append(code,
			unix.SockFilter{Code: load, K: archAt},
			unix.SockFilter{Code: ifEqual, K: c.arch, Jf: 3},
			unix.SockFilter{Code: load, K: numberAt},
			unix.SockFilter{Code: ifEqual, K: c.number, Jf: 1},
			unix.SockFilter{Code: give, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return append(code, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
}

// Inherited returns the listener that the process was started with as descriptor fd. No child gets
// it.
func Inherited(fd int) (*os.File, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil { // so that waiting for it takes no thread
		return nil, fmt.Errorf("take the inherited sync listener: %w", err)
	}
	return os.NewFile(uintptr(fd), "sync listener"),
		nil //nolint:gosec // a descriptor is a small int
}
