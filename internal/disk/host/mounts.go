package host

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Mounted is one mount of this mount namespace.
type Mounted struct {
	Dir    string
	Source string
	device string // major:minor
}

// mounts returns all mounts, in the order of their making. It touches no directory, which a dead
// device might make wait.
func mounts() ([]Mounted, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "read the mounts")
	}
	var all []Mounted
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(info)) {
		head, tail, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(head), strings.Fields(tail)
		if ok && len(f) >= 5 && len(s) >= 2 {
			all = append(all, Mounted{Dir: unescape.Replace(f[4]), Source: s[1], device: f[2]})
		}
	}
	return all, nil
}

// MountAt returns what is mounted on dir, the uppermost, or nil.
func MountAt(dir string) (*Mounted, error) {
	all, err := mounts()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Dir == dir {
			return &all[i], nil
		}
	}
	return nil, err
}

// isMounted reports whether a block device is mounted anywhere, and whether it is the uppermost on
// dir.
func isMounted(source, dir string) (anywhere, onTop bool, err error) {
	all, err := mounts()
	for _, m := range all {
		anywhere = anywhere || m.Source == source
		if m.Dir == dir {
			onTop = m.Source == source
		}
	}
	return anywhere, onTop, err
}

// dead reports whether a mount is of a block device of ours that nobody serves any more.
func (m *Mounted) dead() bool {
	if !frontend.IsOurs(m.device) {
		return false
	}
	f, err := os.OpenFile(m.Source, os.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	// aligned
	block, err := unix.Mmap(-1, 0, disk.BlockSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(block) }()
	_, err = f.ReadAt(block, 0)
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENXIO) ||
		errors.Is(err, syscall.ENOTCONN)
}
