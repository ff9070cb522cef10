package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child must be called first in main. It returns at once, except in a process that a Driver has
// started to become a VM's QEMU: there it never returns.
//
// It runs as root in namespaces of its own: it makes a root with what QEMU needs and nothing else,
// gives up all rights, and replaces itself by QEMU. What fails it says on stderr, QEMU's log.
func Child() {
	if len(os.Args) == 0 || os.Args[0] != jailArg0 {
		return
	}
	// what follows affects the calling thread alone, and it is the one that execs
	runtime.LockOSThread()
	fmt.Fprintln(os.Stderr, "enter the jail:", becomeQEMU(os.Getenv(jailEnv)))
	syscall.Exit(1)
}

// becomeQEMU returns only if it fails.
func becomeQEMU(text string) error {
	var j jail
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("decode the jail: %w", err)
	}
	if err := j.makeRoot(); err != nil {
		return err
	}
	if err := j.enter(); err != nil {
		return err
	}
	if err := j.limit(); err != nil {
		return err
	}
	if err := j.giveUp(); err != nil {
		return err
	}
	err := syscall.Exec(j.Program, j.Args, []string{"PATH=/usr/bin:/bin"})
	return fmt.Errorf("run %s: %w", j.Program, err)
}

// makeRoot mounts the jail's root, and in it what QEMU may see.
func (j jail) makeRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", j.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC,
		"mode=755,size=1m"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, path := range j.ReadOnly {
		if err := j.show(path, unix.MS_RDONLY); err != nil {
			return err
		}
	}
	for _, path := range j.Own {
		if err := j.show(path, unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	for _, path := range j.Devices {
		if err := j.device(path); err != nil {
			return err
		}
	}
	return nil
}

// show binds a file or directory to its own path in the jail, if it is there. A link stays one.
func (j jail) show(path string, flags uintptr) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	target := filepath.Join(j.Root, path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // a root
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0 && filepath.Dir(path) == "/": // /lib, where /usr is merged
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, target)
	case info.IsDir():
		err = os.Mkdir(target, 0o755) //nolint:gosec // as above
	default:
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(path, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s: %w", path, err)
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|
		unix.MS_NODEV|flags, ""); err != nil {
		return fmt.Errorf("restrict %s: %w", path, err)
	}
	return nil
}

// device makes a node that is QEMU's own: the host's may be for root alone.
func (j jail) device(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	target := filepath.Join(j.Root, path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // a root
		return err
	}
	if err := unix.Mknod(target, unix.S_IFCHR|0o600,
		int(st.Rdev)); err != nil { //nolint:gosec // small
		return fmt.Errorf("make %s: %w", path, err)
	}
	return os.Chown(target, j.ID, j.ID)
}

// enter leaves the host's files behind.
func (j jail) enter() error {
	if err := unix.Chdir(j.Root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|
		unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

// limit bounds what QEMU may take of what its cgroup doesn't bound.
func (j jail) limit() error {
	for _, l := range []struct {
		name  string
		which int
		most  uint64
	}{
		{"cores", unix.RLIMIT_CORE, 0}, {"files", unix.RLIMIT_FSIZE, j.MaxFile},
		{"open files", unix.RLIMIT_NOFILE, 1024}, {"threads", unix.RLIMIT_NPROC, 1024},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
	} {
		// syscall's, not unix's: it also makes Exec leave the limit alone
		if err := syscall.Setrlimit(l.which, &syscall.Rlimit{Cur: l.most,
			Max: l.most}); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	return nil
}

// giveUp makes this process one without rights, for ever.
func (j jail) giveUp() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // an older kernel has fewer
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forgo new rights: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave groups: %w", err)
	}
	if err := syscall.Setresgid(j.ID, j.ID, j.ID); err != nil {
		return fmt.Errorf("become group %d: %w", j.ID, err)
	}
	if err := syscall.Setresuid(j.ID, j.ID, j.ID); err != nil {
		return fmt.Errorf("become user %d: %w", j.ID, err)
	}
	return nil
}
