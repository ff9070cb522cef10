package frontend

import (
	"context"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
)

// Host does what a FUSE front end needs the privileges of the kernel's owner for. A process that
// has them is its own Host; one that hasn't asks another for it. A Host serves one device at a
// time.
type Host interface {
	// Connect makes a FUSE mount, and returns the connection that its caller serves and closes. In
	// it there must be a file of that name.
	Connect(ctx context.Context, name string) (conn int, err error)
	// Attach puts a loop device over the file, once the connection is served, and returns the
	// device's path, which need not exist for the caller. The connection ends if it fails.
	Attach(ctx context.Context) (path string, err error)
	// Resize has the kernel know the file's size by now.
	Resize() error
	// Detach writes out what the device holds and lets go of it. If somebody else has it open or
	// mounted, it stays until they are done.
	Detach() error
	// Abort gives the connection up.
	Abort() error
}

// OwnHost is the Host of a process with privileges of its own. It isn't safe for concurrent use,
// but for Abort.
type OwnHost struct {
	devDir     string
	name       string
	mnt        int // -1: none
	loop       *loopDevice
	connection atomic.Uint32 // the kernel's number of the FUSE connection; 0: not known yet
}

var _ Host = (*OwnHost)(nil)

// NewOwnHost returns a Host that finds device nodes in devDir, and makes them there.
func NewOwnHost(devDir string) *OwnHost { return &OwnHost{devDir: devDir, mnt: -1} }

// Connect implements Host.
func (h *OwnHost) Connect(_ context.Context, name string) (int, error) {
	if h.loop != nil {
		return -1, errs.New(errs.Conflict, "a device is attached already")
	}
	h.drop()
	device := filepath.Join(h.devDir, "fuse")
	if _, err := ensureNode(device, unix.S_IFCHR, miscMajor, fuseMinor); err != nil {
		return -1, err
	}
	conn, mnt, err := mountDetached(device, name)
	if err != nil {
		return -1, err
	}
	h.mnt, h.name = mnt, name
	h.connection.Store(0)
	return conn, nil
}

// Attach implements Host.
func (h *OwnHost) Attach(ctx context.Context) (string, error) {
	if h.mnt < 0 {
		return "", errs.New(errs.Conflict, "nothing is connected")
	}
	// From here on the file system ends when its one file is closed, by us or by the loop device.
	defer h.drop()
	file, err := unix.Openat(h.mnt, h.name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "open the fuse file")
	}
	defer release(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "stat the fuse file")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", errs.New(errs.Invalid, "what is served as %s is not a regular file", h.name)
	}
	h.connection.Store(unix.Minor(st.Dev))
	loop, err := attachLoop(ctx, h.devDir, file, h.name)
	if err != nil {
		return "", err
	}
	h.loop = loop
	return loop.path, nil
}

// drop closes the mount.
func (h *OwnHost) drop() {
	if h.mnt >= 0 {
		release(h.mnt)
		h.mnt = -1
	}
}

// Device returns the path of the attached device; "": there is none.
func (h *OwnHost) Device() string {
	if h.loop == nil {
		return ""
	}
	return h.loop.path
}

// Resize implements Host.
func (h *OwnHost) Resize() error {
	if h.loop == nil {
		return errs.New(errs.Conflict, "no device is attached")
	}
	return h.loop.resize()
}

// Detach implements Host. It does nothing where no device is attached.
func (h *OwnHost) Detach() error {
	h.drop()
	if h.loop == nil {
		return nil
	}
	loop := h.loop
	h.loop = nil
	return loop.detach()
}

// Abort implements Host.
func (h *OwnHost) Abort() error {
	id := h.connection.Load()
	if id == 0 {
		return nil
	}
	if err := fuseabort.Connection(id); err != nil {
		return errs.Wrap(errs.Unavailable, err, "abort fuse connection %d", id)
	}
	return nil
}
