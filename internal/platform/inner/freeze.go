package inner

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const cgroupRoot = "/sys/fs/cgroup"

// freezer is what freezes the processes of a cgroup: a file, and what to write into it.
type freezer struct {
	file         string
	freeze, thaw string
}

// Freeze stops every process of the container, and nothing else of the VM. One that waits for the disk stops when
// that answers, before it sees the answer. The container's init is frozen too: nothing can be asked of it until Thaw.
func (c *Container) Freeze() error {
	f, err := c.freezer()
	if err == nil {
		err = os.WriteFile(f.file, []byte(f.freeze), 0)
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "freeze the container")
	}
	return nil
}

// Thaw lets them go on. It may be called any number of times, also when the container has ended.
func (c *Container) Thaw() error {
	f, err := c.freezer()
	if err == nil {
		err = os.WriteFile(f.file, []byte(f.thaw), 0)
	}
	if err != nil && !c.ended() {
		return errs.Wrap(errs.Unavailable, err, "thaw the container")
	}
	return nil
}

// ended reports whether the container's init has ended, and with it all the others.
func (c *Container) ended() bool {
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) })
	return err == nil && n > 0
}

// freezer finds the container's own cgroup, of v2 where that has it, else of v1's freezer. A cgroup that holds more than the
// container would take the platform with it, and is none.
func (c *Container) freezer() (freezer, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(c.pid) + "/cgroup")
	if err != nil {
		return freezer{}, err
	}
	defer f.Close()
	var found freezer
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// hierarchy-ID:controllers:path
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 || filepath.Base(parts[2]) != cgroupName {
			continue
		}
		for _, at := range []freezer{
			{filepath.Join(cgroupRoot, parts[1], parts[2], "cgroup.freeze"), "1", "0"},
			{filepath.Join(cgroupRoot, "unified", parts[2], "cgroup.freeze"), "1", "0"},
			{filepath.Join(cgroupRoot, parts[1], parts[2], "freezer.state"), "FROZEN", "THAWED"},
		} {
			isV2 := parts[0] == "0"
			if _, err := os.Stat(at.file); err == nil && isV2 == (at.freeze == "1") && (isV2 || found.file == "") {
				found = at
			}
		}
	}
	if found.file == "" {
		return freezer{}, errs.New(errs.Unsupported, "the container has no cgroup of its own with a freezer")
	}
	return found, nil
}
