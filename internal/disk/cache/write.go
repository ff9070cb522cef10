package cache

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Writes go around the page cache, where the device can do that. Dirty pages of the cache would
// count as this process's, which would have to wait for them when it needs memory, with all who use
// the disk behind it. Reads go through it: clean pages cost nobody any time.

// openDirect opens what file is once more, for writes around the page cache; nil where its file
// system can't.
func openDirect(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return f
}

// write writes content, which is length bytes together.
func (c *Cache) write(content [][]byte, off int64, length int) error {
	if c.direct == nil || c.refused.Load() {
		return pwritev(c.file, content, off, length)
	}
	err := pwritev(c.direct, aligned(content, length), off, length)
	if errors.Is(err, unix.EINVAL) { // it wants larger units than blocks
		c.refused.Store(true)
		return pwritev(c.file, content, off, length)
	}
	return err
}

// pwritev writes content with one system call and without a copy of it.
func pwritev(f *os.File, content [][]byte, off int64, length int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return errs.Wrap(errs.Internal, err, "write to the cache")
	}
	n, werr := 0, error(nil)
	// the file isn't closed, and its number not another's, before this returns
	err = conn.Write(func(fd uintptr) bool {
		for {
			if n, werr = unix.Pwritev(int(fd), content, off); !errors.Is(werr, unix.EINTR) {
				return true
			}
		}
	})
	if err == nil {
		err = werr
	}
	if err == nil && n != length {
		err = io.ErrShortWrite
	}
	return err
}

// aligned returns content at addresses that a direct write can be from: as it is, where all pieces
// are, which they nearly always are, else as one copy.
func aligned(content [][]byte, length int) [][]byte {
	for _, piece := range content {
		if len(piece) > 0 && misaligned(piece) != 0 {
			whole := make([]byte, length+BlockSize)
			whole = whole[(BlockSize-misaligned(whole))%BlockSize:][:0:length]
			for _, piece := range content {
				whole = append(whole, piece...)
			}
			return [][]byte{whole}
		}
	}
	return content
}

func misaligned(b []byte) int {
	return int(uintptr(unsafe.Pointer(
		unsafe.SliceData(b))) % BlockSize) //nolint:gosec // only its remainder is used
}
