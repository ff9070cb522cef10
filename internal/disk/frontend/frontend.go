package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
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
	DevDir string // where device nodes are, and are made if missing; default /dev
	// Host is who has the kernel's privileges; default: this process, with the nodes of DevDir.
	// The kernel's NBD client needs them in this process.
	Host   Host
	Logger *slog.Logger // default: discards
}

// Frontend is a device that is attached to the kernel. Its methods are safe for concurrent use.
type Frontend struct {
	host      Host
	path      string // of the block device
	fuse      *fuse.Server
	abortDevs context.CancelFunc

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
	f := &Frontend{host: cfg.Host, served: make(chan struct{})}
	if err := f.serve(ctx, dev, cfg); err != nil {
		return nil, err
	}
	var err error
	if f.path, err = f.host.Attach(ctx); err != nil {
		return nil, errors.Join(err, f.end(ctx))
	}
	return f, nil
}

// serve starts the FUSE server.
func (f *Frontend) serve(ctx context.Context, dev disk.Device, cfg Config) error {
	name := namePrefix + cfg.Name
	conn, err := cfg.Host.Connect(ctx, name)
	if err != nil {
		return err
	}
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
		return errors.Join(errs.Wrap(errs.Unsupported, err, "start the fuse server"),
			cfg.Host.Detach())
	}
	f.fuse = server
	f.server.Go(func() error {
		defer close(f.served)
		server.Serve()
		return nil
	})
	return nil
}

// BlockDevice returns the path of the block device.
func (f *Frontend) BlockDevice() string { return f.path }

// Resize implements Shown.
func (f *Frontend) Resize() error {
	// The kernel keeps the file's attributes; from now on it asks for them.
	if status := f.fuse.InodeNotify(fileNode, -1, 0); !status.Ok() {
		return errs.Wrap(errs.Unavailable, syscall.Errno(status),
			"tell the kernel that the fuse file has grown")
	}
	return f.host.Resize()
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
		detach.Go(f.host.Detach)
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
	if err := f.host.Abort(); err != nil {
		return err
	}
	return errors.Join(f.server.Wait(),
		errs.New(errs.Conflict, "block device was still in use, and has been torn away").
			WithRemedy("unmount what is on it before it is closed"))
}
