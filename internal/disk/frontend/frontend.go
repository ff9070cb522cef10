package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
)

const (
	namePrefix = "sluice-" // of backing files, as losetup shows them
	background = 64        // requests that the kernel keeps under way at once
	closeWait  = 30 * time.Second
)

// Config says how a device is shown.
type Config struct {
	// shown by losetup -l; a disk's id. Not empty, without a slash, at most 64 bytes
	Name   string
	DevDir string       // where device nodes are, and are made if missing; default /dev
	Logger *slog.Logger // default: discards
}

// Frontend is a device that is attached to the kernel. Its methods are safe for concurrent use.
type Frontend struct {
	loop       *loopDevice
	fuse       *fuse.Server
	connection uint32 // the kernel's number of the FUSE connection
	abortDevs  context.CancelFunc

	server errgroup.Group
	served chan struct{} // closed when the kernel has let go of the device

	closing  sync.Once
	closeErr error
}

// Attach serves dev as a block device of dev.Size() bytes with 4 KiB sectors, until Close. The size
// must be a multiple of disk.BlockSize. ctx bounds the attaching alone. Needs root.
func Attach(ctx context.Context, dev disk.Device, cfg Config) (*Frontend, error) {
	if err := cfg.complete(dev); err != nil {
		return nil, err
	}
	f := &Frontend{served: make(chan struct{})}
	file, err := f.serve(ctx, dev, cfg)
	if err != nil {
		return nil, err
	}
	// From here on the file system ends when its one file is closed, by us or by the loop device.
	f.loop, err = attachLoop(ctx, cfg.DevDir, file, namePrefix+cfg.Name)
	closeErr := unix.Close(file)
	if err != nil {
		return nil, errors.Join(err, closeErr, f.end(ctx))
	}
	return f, nil
}

// serve starts the FUSE server and opens its file.
func (f *Frontend) serve(ctx context.Context, dev disk.Device, cfg Config) (file int, err error) {
	device := filepath.Join(cfg.DevDir, "fuse")
	if _, err := ensureNode(device, unix.S_IFCHR, miscMajor, fuseMinor); err != nil {
		return -1, err
	}
	name := namePrefix + cfg.Name
	conn, mnt, err := mountDetached(device, name)
	if err != nil {
		return -1, err
	}
	defer release(mnt)
	devCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.abortDevs = cancel
	fs := newFileSystem(devCtx, dev, name, cfg.Logger)
	server, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", conn), &fuse.MountOptions{
		MaxWrite:      maxRequest,
		MaxBackground: background,
		DisableXAttrs: true,
		DisableSplice: true,
		// Without it the loop device's one worker waits for each request before it sends the next,
		// whatever the queue depth.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO,
		Name:              fsType,
		Logger:            slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	})
	if err != nil {
		cancel()
		release(conn)
		return -1, errs.Wrap(errs.Unsupported, err, "start the fuse server")
	}
	f.fuse = server
	f.server.Go(func() error {
		defer close(f.served)
		server.Serve()
		return nil
	})
	// Errors from here on close mnt, by which the server ends.
	file, err = unix.Openat(mnt, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errs.Wrap(errs.Unavailable, err, "open the fuse file")
	}
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		release(file)
		return -1, errs.Wrap(errs.Unavailable, err, "stat the fuse file")
	}
	f.connection = unix.Minor(st.Dev)
	return file, nil
}

// BlockDevice returns the path of the block device.
func (f *Frontend) BlockDevice() string { return f.loop.path }

// Resize implements Shown.
func (f *Frontend) Resize() error {
	// The kernel keeps the file's attributes; from now on it asks for them.
	if status := f.fuse.InodeNotify(fileNode, -1, 0); !status.Ok() {
		return errs.Wrap(errs.Unavailable, syscall.Errno(status),
			"tell the kernel that the fuse file has grown")
	}
	return f.loop.resize()
}

// Done is closed when the kernel has let go of the device: after Close, or because somebody has
// aborted the connection, after which every access to the block device fails.
func (f *Frontend) Done() <-chan struct{} { return f.served }

// Close writes out what the block device holds, flushes, detaches it, and returns when nothing
// serves it any more. File systems on it must have been unmounted before: if after 30 s, or when
// ctx ends, the device is still used, it is torn away from its users, who get EIO, and Close
// returns a Conflict. Idempotent.
func (f *Frontend) Close(ctx context.Context) error {
	f.closing.Do(func() {
		var detach errgroup.Group
		detach.Go(f.loop.detach)
		f.closeErr = errors.Join(f.end(ctx), detach.Wait())
	})
	return f.closeErr
}

// end waits for the server to end, and ends it by force when ctx does.
func (f *Frontend) end(ctx context.Context) error {
	defer f.abortDevs()
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	select {
	case <-f.served:
		return f.server.Wait()
	case <-ctx.Done():
	}
	f.abortDevs()
	if err := fuseabort.Connection(f.connection); err != nil {
		return errs.Wrap(errs.Unavailable, err, "abort fuse connection %d", f.connection)
	}
	return errors.Join(f.server.Wait(),
		errs.New(errs.Conflict, "block device was still in use, and has been torn away").
			WithRemedy("unmount what is on it before it is closed"))
}
