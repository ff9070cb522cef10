package frontend

import (
	"context"
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	rootNode   = 1
	fileNode   = 2
	attrExpiry = 3600 // seconds; when the size changes, the kernel is told
)

// fileSystem is a directory with one file, whose content is the device's.
type fileSystem struct {
	fuse.RawFileSystem // answers ENOSYS to all the rest

	ctx  context.Context // of all device calls; ends when the front end is torn down by force
	dev  disk.Device
	name string
	log  *slog.Logger

	failures atomic.Uint64
}

func newFileSystem(ctx context.Context, dev disk.Device, name string,
	log *slog.Logger) *fileSystem {
	return &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), ctx: ctx, dev: dev,
		name: name, log: log}
}

// String names the file system in the kernel's listings.
func (f *fileSystem) String() string { return fsType }

// Lookup knows one name.
func (f *fileSystem) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string,
	out *fuse.EntryOut) fuse.Status {
	if header.NodeId != rootNode || name != f.name {
		return fuse.ENOENT
	}
	out.NodeId, out.Generation = fileNode, 1
	out.EntryValid, out.AttrValid = attrExpiry, attrExpiry
	f.attributes(fileNode, &out.Attr)
	return fuse.OK
}

// GetAttr tells the size.
func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = attrExpiry
	f.attributes(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *fileSystem) attributes(node uint64, out *fuse.Attr) {
	*out = fuse.Attr{Ino: node, Nlink: 1, Blksize: disk.BlockSize}
	if node == rootNode {
		out.Mode = syscall.S_IFDIR | 0o700
		return
	}
	out.Mode = syscall.S_IFREG | 0o600
	out.Size = uint64(f.dev.Size())
	out.Blocks = out.Size / 512
}

// Open opens the file.
func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.EINVAL
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read reads from the device. A read over the end is cut, as files do.
func (f *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn,
	buf []byte) (fuse.ReadResult, fuse.Status) {
	size := uint64(f.dev.Size())
	if in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	p := buf[:min(uint64(in.Size), size-in.Offset)]
	if err := f.dev.ReadAt(f.ctx, p, int64(in.Offset)); err != nil {
		return nil, f.fail("read", int64(in.Offset), int64(len(p)), err)
	}
	return fuse.ReadResultData(p), fuse.OK
}

// Write writes to the device.
func (f *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if !f.within(in.Offset, uint64(len(data))) {
		return 0, fuse.Status(syscall.EFBIG)
	}
	if err := f.dev.WriteAt(f.ctx, data, int64(in.Offset)); err != nil {
		return 0, f.fail("write", int64(in.Offset), int64(len(data)), err)
	}
	return uint32(len(data)), fuse.OK
}

// Fsync flushes the device. It is what a flush or a forced write to the loop device arrives as.
func (f *fileSystem) Fsync(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status {
	if err := f.dev.Flush(f.ctx); err != nil {
		return f.fail("flush", 0, 0, err)
	}
	return fuse.OK
}

// Fallocate is what discards and zeroing arrive as. The file can't grow or be allocated ahead.
func (f *fileSystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if !f.within(in.Offset, in.Length) {
		return fuse.Status(syscall.EFBIG)
	}
	off, length := int64(in.Offset), int64(in.Length)
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		if err := f.dev.Trim(f.ctx, off, length); err != nil {
			return f.fail("trim", off, length, err)
		}
	case unix.FALLOC_FL_ZERO_RANGE:
		if err := f.dev.Zero(f.ctx, off, length); err != nil {
			return f.fail("zero", off, length, err)
		}
	default:
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return fuse.OK
}

func (f *fileSystem) within(off, length uint64) bool {
	size := uint64(f.dev.Size())
	return off <= size && length <= size-off
}

// Flush is close(2)'s; there's nothing to do, fsync is asked for by itself.
func (f *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Release ends an open.
func (f *fileSystem) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// StatFs tells the block size, which the loop device takes as its discard granularity.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: disk.BlockSize, Frsize: disk.BlockSize,
		Blocks: uint64(f.dev.Size()) / disk.BlockSize, NameLen: 255}
	return fuse.OK
}

// fail answers a device error. It is logged here because the kernel passes on no more than the
// number.
func (f *fileSystem) fail(op string, off, length int64, err error) fuse.Status {
	// A device that is fenced fails every call; powers of two keep that from flooding the log.
	if n := f.failures.Add(1); n&(n-1) == 0 {
		f.log.Error("block device error", "disk", f.name, "op", op, "offset", off, "length", length,
			"kind", string(errs.KindOf(err)), "failures", n, "err", err)
	}
	if errs.Is(err, errs.Exhausted) {
		return fuse.Status(syscall.ENOSPC)
	}
	return fuse.EIO
}
