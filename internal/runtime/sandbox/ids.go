package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filelock"
)

// The ids of users and groups that a VM has. Its root namespace has the first half of its range,
// and the inner container's user namespace in it the second, under the ids that the platform gives
// a container in every VM.
const (
	idsHalf     = 65536
	idsOfVM     = 2 * idsHalf
	innerIDBase = 100000

	// From here on ids are no host's own: they are above those of people and services, and within
	// what systemd leaves to containers.
	firstIDs = 0x4000_0000
	mostVMs  = 0x3000_0000 / idsOfVM // 6144
)

// idsDir has a link for each range in use, to the directory of the VM that has it. It is common to
// all workers of a host, and goes with the host's boot, as all VMs do.
const idsDir = "/run/sluice-vm-ids"

// idMap maps the ids of a VM to those that it has on the host.
func idMap(first uint32) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: int(first), Size: idsHalf},
		{ContainerID: innerIDBase, HostID: int(first) + idsHalf, Size: idsHalf},
	}
}

// takeIDs claims a range of ids that no other VM of this host has, for the VM in dir.
func takeIDs(dir string) (first uint32, err error) {
	if err := os.MkdirAll(idsDir, 0o700); err != nil {
		return 0, errs.Wrap(errs.Internal, err, "make the directory of VMs' ids")
	}
	lock, err := os.Open(idsDir)
	if err != nil {
		return 0, errs.Wrap(errs.Internal, err, "open the directory of VMs' ids")
	}
	if err := filelock.Take(lock); err != nil {
		return 0, errors.Join(err, lock.Close())
	}
	first, err = claim(dir)
	return first, errors.Join(err, filelock.Close(lock))
}

// claim takes the first range that is free, or whose VM's directory is gone: that is made before a
// VM has ids, and removed last.
func claim(dir string) (uint32, error) {
	for slot := range mostVMs {
		link := filepath.Join(idsDir, strconv.Itoa(slot))
		owner, err := os.Readlink(link)
		switch {
		case err == nil:
			if _, err := os.Lstat(owner); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := os.Remove(link); err != nil {
				return 0, errs.Wrap(errs.Internal, err, "free the ids of a VM that is gone")
			}
		case !errors.Is(err, fs.ErrNotExist):
			return 0, errs.Wrap(errs.Internal, err, "look at the ids of VMs")
		}
		if err := os.Symlink(dir, link); err != nil {
			return 0, errs.Wrap(errs.Internal, err, "claim ids for a VM")
		}
		return firstIDs + uint32(slot)*idsOfVM, nil //nolint:gosec // at most 6144 slots
	}
	return 0, errs.New(errs.Exhausted, "%d VMs have all the ids that there are", mostVMs)
}

// giveIDs gives back the range of the VM in dir, if it has one.
func giveIDs(first uint32, dir string) error {
	if first < firstIDs {
		return nil
	}
	slot := filepath.Join(idsDir, strconv.Itoa(int(first-firstIDs)/idsOfVM))
	owner, err := os.Readlink(slot)
	if err == nil && owner == dir {
		err = os.Remove(slot)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.Internal, err, "give back the ids of a VM")
	}
	return nil
}
