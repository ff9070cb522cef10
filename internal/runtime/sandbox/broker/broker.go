// Package broker serves package diskbroker on the host, for one VM: it shows and mounts the VM's
// disk, which takes privileges that the VM's own processes don't have.
//
// Invariants: it acts on the one disk that it has made itself, whatever it is asked. It trusts
// nobody who asks but to be the VM's root. What it reads of them is fixed in size and form. It
// holds no FUSE connection, so that the disk ends with the VM. All that it has ends with its
// process: the mount with its mount namespace, the loop device with the last use of it.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxCalls     = 16 // that are served at once
	readWithin   = 10 * time.Second
	unmountTries = 300 * time.Millisecond // of one call; the caller tries again
)

// Config of a broker.
type Config struct {
	Listener *net.UnixListener
	UID      uint32   // the VM's root, on the host
	Users    *os.File // the VM's user namespace
	Dir      string   // where the disk is mounted, in a mount namespace that is the broker's alone
	Log      *slog.Logger
}

// Broker is a VM's.
type Broker struct {
	cfg  Config
	host *frontend.OwnHost
	turn chan struct{} // who has it uses the disk
}

// New returns a broker.
func New(cfg Config) *Broker {
	return &Broker{cfg: cfg, host: frontend.NewOwnHost("/dev"), turn: make(chan struct{}, 1)}
}

// Run serves until ctx ends. A call that hangs, because the VM doesn't serve its disk, doesn't
// keep it from returning: its process is about to end.
func (b *Broker) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = b.cfg.Listener.Close() })
	defer stop()
	var calls errgroup.Group
	calls.SetLimit(maxCalls)
	for {
		conn, err := b.cfg.Listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "accept a call")
		}
		calls.Go(func() error {
			b.serve(ctx, conn)
			return nil
		})
	}
}

// serve answers the one call of a connection.
func (b *Broker) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	if err := b.check(conn); err != nil {
		b.cfg.Log.WarnContext(ctx, "refused a caller", "error", err)
		return
	}
	if conn.SetDeadline(time.Now().Add(readWithin)) != nil {
		return
	}
	req, err := diskbroker.ReadRequest(conn)
	if err != nil {
		b.cfg.Log.WarnContext(ctx, "refused a call", "error", err)
		return
	}
	if req.Users != nil {
		defer req.Users.Close()
	}
	if req.Op == diskbroker.OpWatch {
		watch(conn)
		return
	}
	reply, fd, err := b.do(ctx, req)
	if err != nil {
		failed := diskbroker.Failed(err)
		failed.Has, failed.Could = reply.Has, reply.Could
		reply = failed
	}
	var file *os.File
	if fd >= 0 {
		file = os.NewFile(uintptr(fd), "answer") //nolint:gosec // a descriptor
		defer file.Close()
	}
	if conn.SetDeadline(time.Now().Add(readWithin)) != nil {
		return
	}
	if err := reply.Send(conn, file); err != nil {
		b.cfg.Log.WarnContext(ctx, "answer not sent", "error", err)
	}
}

// watch returns when the caller has gone.
func watch(conn *net.UnixConn) {
	if conn.SetDeadline(time.Time{}) == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
}

// check refuses whoever isn't root of the VM, such as one of its machine's processes.
func (b *Broker) check(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "look at a caller")
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return errs.Wrap(errs.Unavailable, err, "look at a caller")
	}
	if cred.Uid != b.cfg.UID {
		return errs.New(errs.Denied, "process %d is user %d, and not the VM's root",
			cred.Pid, cred.Uid)
	}
	return nil
}

// do does what is asked. fd is -1, or what the caller gets.
func (b *Broker) do(ctx context.Context, req diskbroker.Request) (r diskbroker.Reply, fd int,
	err error) {
	if req.Op == diskbroker.OpAbort { // whoever has the turn may wait for just this
		return r, -1, b.host.Abort()
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return r, -1, context.Cause(ctx)
	}
	switch req.Op {
	case diskbroker.OpConnect:
		fd, err = b.host.Connect(ctx, req.Name)
		return r, fd, err
	case diskbroker.OpAttach:
		r.Path, err = b.host.Attach(ctx)
	case diskbroker.OpResize:
		err = b.host.Resize()
	case diskbroker.OpDetach:
		err = b.host.Detach()
	case diskbroker.OpBarriers:
		err = frontend.SetBarriers(b.cfg.Dir, req.On)
	case diskbroker.OpGrow:
		return b.grow()
	case diskbroker.OpMount:
		fd, err = b.mount(ctx)
		return r, fd, err
	case diskbroker.OpTree:
		fd, err = b.tree(req.Users)
		return r, fd, err
	case diskbroker.OpUnmount:
		ctx, cancel := context.WithTimeout(ctx, unmountTries)
		defer cancel()
		err = frontend.UnmountMachine(ctx, b.cfg.Dir, b.host.Device())
	case diskbroker.OpDrop:
		err = b.drop()
	default:
		err = errs.New(errs.Unsupported, "there is no operation %d", req.Op)
	}
	return r, -1, err
}

// mount mounts the disk, and returns a mount of it for the VM's root namespace.
func (b *Broker) mount(ctx context.Context) (int, error) {
	device := b.host.Device()
	if device == "" {
		return -1, errs.New(errs.Conflict, "no disk is attached")
	}
	if err := frontend.MountMachine(ctx, device, b.cfg.Dir); err != nil {
		return -1, err
	}
	return frontend.MappedTree(b.cfg.Dir, int(b.cfg.Users.Fd()), //nolint:gosec // a descriptor
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// tree returns a mount of the disk for a container of the VM.
func (b *Broker) tree(users *os.File) (int, error) {
	if mounted, err := frontend.IsMountPoint(b.cfg.Dir); err != nil || !mounted {
		return -1, errors.Join(err, errs.New(errs.Conflict, "no disk is mounted"))
	}
	if err := b.isWithin(users); err != nil {
		return -1, err
	}
	return frontend.MappedTree(b.cfg.Dir, int(users.Fd()), //nolint:gosec // a descriptor
		unix.MOUNT_ATTR_NODEV)
}

// isWithin refuses a user namespace that isn't the VM's child.
func (b *Broker) isWithin(users *os.File) error {
	if users == nil {
		return errs.New(errs.Invalid, "the call brings no user namespace")
	}
	up, err := unix.IoctlRetInt(int(users.Fd()), unix.NS_GET_PARENT) //nolint:gosec // a descriptor
	if err != nil {
		return errs.Wrap(errs.Denied, err, "what the call brings is no user namespace of the VM")
	}
	defer unix.Close(up)
	var parent, own unix.Stat_t
	if err := errors.Join(unix.Fstat(up, &parent),
		unix.Fstat(int(b.cfg.Users.Fd()), &own)); err != nil { //nolint:gosec // a descriptor
		return errs.Wrap(errs.Unavailable, err, "look at a user namespace")
	}
	if parent.Dev != own.Dev || parent.Ino != own.Ino {
		return errs.New(errs.Denied, "what the call brings is no user namespace of the VM")
	}
	return nil
}

func (b *Broker) grow() (r diskbroker.Reply, fd int, err error) {
	device := b.host.Device()
	if device == "" {
		return r, -1, errs.New(errs.Conflict, "no disk is attached")
	}
	// Without a mount it would be the host's own file system that grows.
	if mounted, err := frontend.IsMountPoint(b.cfg.Dir); err != nil || !mounted {
		return r, -1, errors.Join(err, errs.New(errs.Conflict, "no disk is mounted"))
	}
	if r.Has, r.Could, err = frontend.Ext4Bytes(device); err != nil {
		return r, -1, err
	}
	r.Grown, err = frontend.GrowExt4(device, b.cfg.Dir)
	return r, -1, err
}

// drop lets go of the mount without waiting for who uses it.
func (b *Broker) drop() error {
	err := unix.Unmount(b.cfg.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return errs.Wrap(errs.Unavailable, err, "let go of the machine's disk")
	}
	return nil
}
