package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime/guestroot"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// cgroupMount is one cgroup hierarchy as the VM shall see it.
type cgroupMount struct {
	Dir     string `json:"dir"` // below /sys/fs/cgroup; "" is that itself
	Type    string `json:"type"`
	Options string `json:"options"`
}

// guestMounts returns the VM's hierarchies, under the names that they have on the host. It leaves
// out v1 hierarchies that bound nothing, which some programs make on a host with v2: they would
// make the container runtime use v1.
func guestMounts(c onhost.Layout, allV2 bool) []cgroupMount {
	if allV2 {
		return []cgroupMount{{Type: "cgroup2"}}
	}
	var all []cgroupMount
	for _, h := range c.V1 {
		all = append(all, cgroupMount{Dir: filepath.Base(h.Mount), Type: "cgroup",
			Options: h.Options})
	}
	return append(all, cgroupMount{Dir: "unified", Type: "cgroup2"})
}

// makeRoot builds the VM's root directory at s.Root: a tmpfs with the release's directories in it,
// read-only, and what a kernel would provide.
func makeRoot(s setup) error {
	if err := guestroot.Mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt",
		"var/tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(s.Root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := guestroot.AddRelease(s.Root, s.Release, bindReadOnly); err != nil {
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

// bindReadOnly shows a directory of the release, read-only.
func bindReadOnly(from, to string) error {
	if err := guestroot.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return guestroot.Mount("", to, "",
		unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// mountKernel mounts proc, sys and the cgroups. Nothing is hidden below /proc and /sys: the kernel
// lets an inner user namespace have its own only if it can see the whole of these.
func mountKernel(s setup) error {
	sys := filepath.Join(s.Root, "sys")
	if err := guestroot.Mount("proc", filepath.Join(s.Root, "proc"), "proc", guestroot.NoProgram,
		""); err != nil {
		return err
	}
	if err := guestroot.Mount("sysfs", sys, "sysfs", guestroot.NoProgram, ""); err != nil {
		return err
	}
	// Read-only for this mount alone, not for the file system, which the inner container mounts
	// too.
	if err := guestroot.Mount("", sys, "",
		unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|guestroot.NoProgram, ""); err != nil {
		return err
	}
	groups := filepath.Join(sys, "fs/cgroup")
	if len(s.Mounts) > 1 {
		if err := guestroot.Mount("tmpfs", groups, "tmpfs", guestroot.NoProgram,
			"mode=755,size=64k"); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		dir := filepath.Join(groups, m.Dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := guestroot.Mount(m.Type, dir, m.Type, guestroot.NoProgram, m.Options); err != nil {
			return err
		}
	}
	return nil
}

// makeDev fills /dev. Nodes of loop devices are made by the platform as it gets them.
func makeDev(dev string, cache int) error {
	if err := guestroot.Mount("tmpfs", dev, "tmpfs", guestroot.Device,
		"mode=755,size=1m"); err != nil {
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
	return guestroot.CompleteDev(dev)
}

// deliverBoot makes /run and puts the boot document into it, for root's eyes only.
func deliverBoot(run string, boot []byte) error {
	if err := guestroot.Mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
		"mode=755"); err != nil {
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
