package frontend

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// The kernel's client (before 6.13) may lose a request of which only a part fits into the
	// socket's buffer, when the process that writes has a signal pending just then. So all that a
	// connection can have under way has room: 128 requests, which is the depth of the kernel's
	// queue, each of at most this many KiB, and what a socket adds.
	nbdMaxRequestKiB = 256
	// bytes; the kernel takes twice that, for what it adds
	nbdSendBuffer = 128 * nbdMaxRequestKiB << 10
)

// NBDDevice is a device that the kernel's NBD client shows, served by this process over a socket
// pair. It is one connection and not one for each CPU, because a kernel (6.1) that changes how many
// queues a device has may lose the first flush after it.
//
// When the process dies in whatever way, every new access to the device fails with EIO. What was
// under way waits, and who waits for it can't be killed, until EndOrphans is called; AttachNBD and
// Sweep call it too.
type NBDDevice struct {
	link      nbdLink
	dev       disk.Device
	index     uint32
	backend   string
	path      string
	created   bool // we made the node, and remove it
	abortDevs context.CancelFunc

	server errgroup.Group
	served chan struct{} // closed when the connection has ended

	closing  sync.Once
	closeErr error
}

// AttachNBD serves dev as Attach does, through the kernel's NBD client. It is Unsupported where
// that is not there for this process. ctx bounds the attaching alone. Needs root in the initial
// network namespace.
func AttachNBD(ctx context.Context, dev disk.Device, cfg Config) (*NBDDevice, error) {
	if err := cfg.complete(dev); err != nil {
		return nil, err
	}
	link, err := openNBDLink()
	if err != nil {
		return nil, err
	}
	if err := link.endOrphans(); err != nil {
		return nil, err
	}
	n := &NBDDevice{link: link, dev: dev, served: make(chan struct{})}
	if n.backend, err = nbdBackend(cfg.Name); err != nil {
		return nil, err
	}
	ours, kernels, err := nbdSockets()
	if err != nil {
		return nil, err
	}
	devCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.abortDevs = cancel
	export := nbd.Export{Name: cfg.Name, Device: bounded{dev, devCtx}}
	n.server.Go(func() error {
		defer close(n.served)
		return nbd.Transmit(devCtx, nbd.Config{Exports: []nbd.Export{export}, ConnMemory: 1,
			Logger: cfg.Logger}, ours)
	})
	n.index, err = link.connect(dev.Size(), export.Flags(), n.backend, kernels)
	release(kernels) // the kernel has it now, or nobody
	if err == nil {
		if err = setQueue(n.index); err == nil {
			n.path, n.created, err = nbdNode(cfg.DevDir, n.index)
		}
		if err != nil {
			err = errors.Join(err, link.disconnect(n.index, n.backend))
		}
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, n.server.Wait())
	}
	return n, nil
}

// nbdSockets makes a connection: the end that is served, and the one for the kernel. They share
// nothing, so that the kernel's stays blocking whatever happens to ours.
func nbdSockets() (ours *os.File, kernels int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, errs.Wrap(errs.Exhausted, err, "connect to the kernel's NBD client")
	}
	for _, fd := range pair {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE,
			nbdSendBuffer); err != nil {
			release(pair[0])
			release(pair[1])
			return nil, -1, errs.Wrap(errs.Denied, err,
				"make room in the connection to the kernel's NBD client")
		}
	}
	return os.NewFile(uintptr(pair[0]), "nbd"), pair[1], nil
}

// Kind implements Shown.
func (n *NBDDevice) Kind() Kind { return NBD }

// BlockDevice implements Shown.
func (n *NBDDevice) BlockDevice() string { return n.path }

// Resize implements Shown.
func (n *NBDDevice) Resize() error {
	if err := n.link.resize(n.index, n.backend, n.dev.Size()); err != nil {
		return errs.Wrap(errs.Unavailable, err, "resize %s", n.path)
	}
	return nil
}

// Done implements Shown.
func (n *NBDDevice) Done() <-chan struct{} { return n.served }

// Close implements Shown.
func (n *NBDDevice) Close(ctx context.Context) error {
	n.closing.Do(func() {
		var detach errgroup.Group
		detach.Go(n.detach)
		n.closeErr = errors.Join(n.end(ctx), detach.Wait(), n.removeNode())
	})
	return n.closeErr
}

// detach writes out what the block device holds and has the kernel end it, once nobody else has it
// open either.
func (n *NBDDevice) detach() error {
	fd, err := unix.Open(n.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Fsync(fd), n.link.letGo(n.path, n.index, n.backend), unix.Close(fd))
	}
	if err == nil {
		return nil
	}
	return errors.Join(errs.Wrap(errs.Unavailable, err, "detach %s", n.path),
		n.link.disconnect(n.index, n.backend))
}

// end waits for the connection to end, and ends it by force when ctx does.
func (n *NBDDevice) end(ctx context.Context) error {
	defer n.abortDevs()
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	select {
	case <-n.served:
		return n.server.Wait()
	case <-ctx.Done():
	}
	n.abortDevs()
	if err := n.link.disconnect(n.index, n.backend); err != nil {
		return errs.Wrap(errs.Unavailable, err, "disconnect %s", n.path)
	}
	return errors.Join(n.server.Wait(),
		errs.New(errs.Conflict, "block device was still in use, and has been torn away").
			WithRemedy("unmount what is on it before it is closed"))
}

func (n *NBDDevice) removeNode() error {
	if !n.created {
		return nil
	}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// bounded is a device whose calls end with ctx, as those of a front end that is torn down by force
// must.
type bounded struct {
	disk.Device
	ctx context.Context
}

func (b bounded) ReadAt(_ context.Context, p []byte, off int64) error {
	return b.Device.ReadAt(b.ctx, p, off)
}

func (b bounded) WriteAt(_ context.Context, p []byte, off int64) error {
	return b.Device.WriteAt(b.ctx, p, off)
}

func (b bounded) Flush(_ context.Context) error { return b.Device.Flush(b.ctx) }

func (b bounded) Trim(_ context.Context, off, n int64) error { return b.Device.Trim(b.ctx, off, n) }

func (b bounded) Zero(_ context.Context, off, n int64) error { return b.Device.Zero(b.ctx, off, n) }
