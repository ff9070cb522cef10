package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// cgroupMount is one cgroup hierarchy as the VM shall see it.
type cgroupMount struct {
	Dir     string `json:"dir"` // below /sys/fs/cgroup; "" is that itself
	Type    string `json:"type"`
	Options string `json:"options"`
}

// guestMounts shows the VM its hierarchies under the same names as the host has them.
func guestMounts(c onhost.Layout) []cgroupMount {
	if len(c.V1) == 0 {
		return []cgroupMount{{Type: "cgroup2"}}
	}
	var all []cgroupMount
	for _, h := range c.V1 {
		all = append(all, cgroupMount{Dir: filepath.Base(h.Mount), Type: "cgroup", Options: h.Options})
	}
	return append(all, cgroupMount{Dir: "unified", Type: "cgroup2"})
}

const (
	noProgram = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	device    = unix.MS_NOSUID | unix.MS_NOEXEC
)

// makeRoot builds the VM's root directory at s.Root: a tmpfs with the release's directories in it, read-only,
// and what a kernel would provide.
func makeRoot(s setup) error {
	if err := mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt", "var/tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(s.Root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := addRelease(s.Root, s.Release); err != nil {
		return err
	}
	if err := mountKernel(s); err != nil {
		return err
	}
	if err := makeDev(filepath.Join(s.Root, "dev"), s.Cache); err != nil {
		return err
	}
	return deliverBoot(filepath.Join(s.Root, "run"), s.Boot)
}

// addRelease shows the release's directories, read-only, at the same places, and completes the links of
// a merged /usr.
func addRelease(root, release string) error {
	entries, err := os.ReadDir(release)
	if err != nil {
		return fmt.Errorf("read release: %w", err)
	}
	kernel := []string{"dev", "proc", "sys", "run", "tmp"}
	for _, e := range entries {
		from, to := filepath.Join(release, e.Name()), filepath.Join(root, e.Name())
		switch {
		case slices.Contains(kernel, e.Name()):
		case e.IsDir():
			if err := bindReadOnly(from, to); err != nil {
				return err
			}
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		err := os.Symlink("usr/"+name, filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func bindReadOnly(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// mountKernel mounts proc, sys and the cgroups. Nothing is hidden below /proc and /sys: the kernel lets an inner
// user namespace have its own only if it can see the whole of these.
func mountKernel(s setup) error {
	sys := filepath.Join(s.Root, "sys")
	if err := mount("proc", filepath.Join(s.Root, "proc"), "proc", noProgram, ""); err != nil {
		return err
	}
	if err := mount("sysfs", sys, "sysfs", noProgram, ""); err != nil {
		return err
	}
	// Read-only for this mount alone, not for the file system, which the inner container mounts too.
	if err := mount("", sys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noProgram, ""); err != nil {
		return err
	}
	groups := filepath.Join(sys, "fs/cgroup")
	if len(s.Mounts) > 1 {
		if err := mount("tmpfs", groups, "tmpfs", noProgram, "mode=755,size=64k"); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		dir := filepath.Join(groups, m.Dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := mount(m.Type, dir, m.Type, noProgram, m.Options); err != nil {
			return err
		}
	}
	return nil
}

// makeDev fills /dev. Nodes of loop devices are made by the platform as it gets them.
func makeDev(dev string, cache int) error {
	if err := mount("tmpfs", dev, "tmpfs", device, "mode=755,size=1m"); err != nil {
		return err
	}
	nodes := []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"null", unix.S_IFCHR | 0o666, 1, 3}, {"zero", unix.S_IFCHR | 0o666, 1, 5},
		{"full", unix.S_IFCHR | 0o666, 1, 7}, {"random", unix.S_IFCHR | 0o666, 1, 8},
		{"urandom", unix.S_IFCHR | 0o666, 1, 9}, {"tty", unix.S_IFCHR | 0o666, 5, 0},
		{"fuse", unix.S_IFCHR | 0o600, 10, 229}, {"loop-control", unix.S_IFCHR | 0o600, 10, 237},
	}
	if cache != noCache {
		nodes = append(nodes, struct {
			name         string
			mode         uint32
			major, minor uint32
		}{"sluice-cache", unix.S_IFBLK | 0o600, 7, uint32(cache)})
	}
	for _, n := range nodes {
		path := filepath.Join(dev, n.name)
		if err := unix.Mknod(path, n.mode, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("make device %s: %w", n.name, err)
		}
		if err := os.Chmod(path, os.FileMode(n.mode&0o777)); err != nil { // whatever the umask
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		mount("devpts", filepath.Join(dev, "pts"), "devpts", device, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", noProgram, "mode=1777"),
		mount("mqueue", filepath.Join(dev, "mqueue"), "mqueue", noProgram, ""),
	)
}

// deliverBoot makes /run and puts the boot document into it, for root's eyes only.
func deliverBoot(run string, boot []byte) error {
	if err := mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	dir := filepath.Join(run, "sluice")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "boot.json"), boot, 0o600); err != nil {
		return err
	}
	for _, tmp := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(filepath.Dir(run), tmp), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	return nil
}

// mount is mount(2) with an error that says what was mounted where.
func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		what := strings.TrimSpace(kind + " " + source)
		return fmt.Errorf("mount %s on %s (options %q): %w", what, target, options, err)
	}
	return nil
}
