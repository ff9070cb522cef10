package onhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/filelock"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// madeMark marks each v2 cgroup above VMs that a worker has made. The settings of other cgroups
// aren't changed.
const madeMark = "trusted.sluice"

// protectPlatform keeps the kernel from reclaiming the platform's memory for other VMs or the host.
// The cgroups in between pass the protection on.
func (c Cgroups) protectPlatform() error {
	if c.V1For("memory") != "" {
		return nil // v1 has nothing of the kind
	}
	for _, dir := range []string{c.Outer(c.Unified), c.Inner(c.Unified)} {
		if err := (memcg.Cgroup{Dir: dir, V2: true}).Protect(guestapi.PlatformMemory); err != nil {
			return err
		}
	}
	return c.protectParents()
}

// protectParents gives the cgroups above the VM what their children are given: the kernel heeds
// what is promised to a cgroup only as far as those above it have been promised as much.
func (c Cgroups) protectParents() error {
	if c.V1For("memory") != "" {
		return nil
	}
	for p := c.Parent; p != "." && p != ""; p = filepath.Dir(p) {
		dir := filepath.Join(c.Unified, p)
		if !isMarked(dir, madeMark) {
			return nil
		}
		if err := protectSum(dir); err != nil {
			return fmt.Errorf("protect what %s holds: %w", dir, err)
		}
	}
	return nil
}

// protectSum protects as much of a cgroup's memory as of its children's in total. Call it after
// each change of a child, one call at a time, so that the last call sees all changes.
func protectSum(dir string) error {
	lock, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed with its last VM
	}
	if err != nil {
		return err
	}
	if err := filelock.Take(lock); err != nil {
		return errors.Join(err, lock.Close())
	}
	return errors.Join(protectLocked(dir), filelock.Close(lock))
}

func protectLocked(dir string) error {
	children, err := os.ReadDir(dir)
	if err != nil {
		return ifThere(err)
	}
	sum := int64(0)
	for _, child := range children {
		text, err := os.ReadFile(filepath.Join(dir, child.Name(), "memory.min"))
		if n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil &&
			parseErr == nil {
			sum += n // else it is a file, gone meanwhile, or not ours
		}
	}
	return ifThere(memcg.Cgroup{Dir: dir, V2: true}.Protect(sum))
}

// ifThere returns nil for the error that a cgroup is gone.
func ifThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// isMarked reports whether a cgroup has a given attribute that is set.
func isMarked(dir, mark string) bool {
	value := make([]byte, 1)
	n, err := unix.Getxattr(dir, mark, value)
	return err == nil && n == 1 && value[0] == '1'
}
