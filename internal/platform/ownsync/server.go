package ownsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config of a Server.
type Config struct {
	Listener *os.File // as Inherited returns it
	// WriteOut writes out the file system.
	WriteOut func() error
}

// Server answers the calls of all processes under one filter.
type Server struct {
	cfg  Config
	more chan struct{} // holds one when waiting may not be empty

	mu      sync.Mutex
	waiting []uint64 // calls that came after the write-out under way had begun
}

// New returns a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg, more: make(chan struct{}, 1)} }

// Run serves until ctx ends, and a write-out under way has.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.take(ctx) })
	g.Go(func() error { return s.answer(ctx) })
	return g.Wait()
}

// take accepts calls as they arrive, and never waits for the disk: a call can be interrupted until
// it is accepted.
func (s *Server) take(ctx context.Context) error {
	raw, err := s.cfg.Listener.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for a sync: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.cfg.Listener.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		var id uint64
		var callErr error
		err := raw.Read(func(fd uintptr) bool {
			var there bool
			id, there, callErr = receive(fd)
			return there || callErr != nil
		})
		if err == nil {
			err = callErr
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take a sync: %w", err)
		}
		s.mu.Lock()
		s.waiting = append(s.waiting, id)
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
	}
	return nil
}

// answer runs one write-out for all calls that wait, again and again. A call that arrives during a
// write-out waits for the next one, which alone is sure to include the caller's writes.
func (s *Server) answer(ctx context.Context) error {
	// The thread is there from the start, so that a machine that has used up its processes can
	// still sync.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.more:
		}
		s.mu.Lock()
		ids := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		// As in the kernel, a sync reports no error. fsync and syncfs do: the kernel keeps the
		// error for each open file.
		_ = s.cfg.WriteOut()
		for _, id := range ids {
			if err := s.reply(id); err != nil {
				return err
			}
		}
	}
}

// reply lets a call return. The caller may have been killed in the meantime.
func (s *Server) reply(id uint64) error {
	raw, err := s.cfg.Listener.SyscallConn()
	if err != nil {
		return fmt.Errorf("answer a sync: %w", err)
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { sendErr = send(fd, id) })
	if err == nil && !errors.Is(sendErr, unix.ENOENT) {
		err = sendErr
	}
	if err != nil {
		return fmt.Errorf("answer a sync: %w", err)
	}
	return nil
}

// notification is the kernel's struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	at         uint64
	args       [6]uint64
}

// response is the kernel's struct seccomp_notif_resp; as it is, the call returns 0.
type response struct {
	id     uint64
	result int64
	errno  int32
	flags  uint32
}

// receive returns the call that waits, if one does. It doesn't block.
func receive(fd uintptr) (id uint64, there bool, err error) {
	for {
		ready := []unix.PollFd{{Fd: int32(fd),
			Events: unix.POLLIN}} //nolint:gosec // a descriptor is a small int
		_, err := unix.Poll(ready, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || ready[0].Revents&unix.POLLIN == 0 {
			return 0, false, err
		}
		var call notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV,
			uintptr(unsafe.Pointer(&call))) //nolint:gosec // no other way
		switch errno {
		case 0:
			return call.id, true, nil
		case unix.EINTR, unix.ENOENT: // ENOENT: who called has been interrupted, or is gone
		default:
			return 0, false, errno
		}
	}
}

func send(fd uintptr, id uint64) error {
	answer := response{id: id}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND,
			uintptr(unsafe.Pointer(&answer))) //nolint:gosec // no other way
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// Root is the file system of a directory, as the WriteOut of a Server. Safe for concurrent use.
type Root struct {
	mu  sync.Mutex
	dir *os.File
}

// Open opens dir, once, and keeps it open. A write-out must not fail for lack of a descriptor,
// because it can report that to nobody.
func (r *Root) Open(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != nil {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "hold the file system of %s", dir)
	}
	r.dir = f
	return nil
}

// WriteOut makes the file system's data durable. Before Open it does nothing.
func (r *Root) WriteOut() error {
	r.mu.Lock()
	dir := r.dir
	r.mu.Unlock()
	if dir == nil {
		return nil
	}
	for {
		err := unix.Syncfs(int(dir.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
