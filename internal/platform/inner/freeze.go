package inner

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// freezer is a file whose content freezes or thaws the processes of a cgroup.
type freezer struct {
	file         string
	freeze, thaw string
}

// Freeze stops every process of the container, its init included, and nothing else of the VM. Until
// Thaw the container's init answers no call. A process that waits for the disk stops when the disk
// answers, before it sees the answer.
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

// Thaw undoes Freeze. Idempotent, also when the container has ended.
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
	err = raw.Control(func(fd uintptr) {
		n,
			_ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return err == nil && n > 0
}

// freezer finds what freezes the container's own cgroup: v2 where that has it, else v1's freezer.
func (c *Container) freezer() (freezer, error) {
	own, err := c.cgroups()
	if err != nil {
		return freezer{}, err
	}
	var found freezer
	for _, g := range own {
		at := freezer{filepath.Join(g.Dir, "freezer.state"), "FROZEN", "THAWED"}
		if g.V2 {
			at = freezer{filepath.Join(g.Dir, "cgroup.freeze"), "1", "0"}
		}
		if _, err := os.Stat(at.file); err == nil && (g.V2 || found.file == "") {
			found = at
		}
	}
	if found.file == "" {
		return freezer{}, errs.New(errs.Unsupported,
			"the container has no cgroup of its own with a freezer")
	}
	return found, nil
}
