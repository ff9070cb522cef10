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

// makeRoot builds the VM's root directory: a tmpfs with the release's directories in it, read-only,
// and devices. It belongs to the VM's root, but for what has devices.
func makeRoot(root string, s setup) error {
	owner := ownedBy(s)
	if err := guestroot.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID,
		"mode=755,"+owner); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt", "var",
		"var/tmp", "etc"} {
		path := filepath.Join(root, dir)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := os.Lchown(path, int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	for _, tmp := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(root, tmp), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	if err := guestroot.AddRelease(root, s.Release, bindReadOnly); err != nil {
		return err
	}
	if err := makeDev(filepath.Join(root, "dev"), s); err != nil {
		return err
	}
	return deliverBoot(filepath.Join(root, "run"), s)
}

// ownedBy are the options of a tmpfs whose top directory is that of the VM's root.
func ownedBy(s setup) string { return fmt.Sprintf("uid=%d,gid=%d", s.FirstID, s.FirstID) }

// completeRoot mounts, in the VM's namespaces, what belongs to them. The root is the current
// directory.
func completeRoot(s setup) error {
	if err := mountKernel(s); err != nil {
		return err
	}
	return guestroot.MountDev("dev")
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
	const sys = "sys"
	if err := guestroot.Mount("proc", "proc", "proc", guestroot.NoProgram, ""); err != nil {
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

// makeDev fills /dev with the devices that a VM may have, in a directory that it can't change. The
// nodes of its disk are not among them, nor is what makes more: that is its broker's.
func makeDev(dev string, s setup) error {
	if err := guestroot.Mount("tmpfs", dev, "tmpfs", guestroot.Device,
		"mode=755,size=1m"); err != nil {
		return err
	}
	for _, n := range []struct {
		name  string
		major uint32
		minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9},
		{"tty", 5, 0}} {
		path := filepath.Join(dev, n.name)
		if err := makeNode(path, unix.S_IFCHR|0o666, unix.Mkdev(n.major, n.minor)); err != nil {
			return err
		}
	}
	if s.Cache != noCache {
		var st unix.Stat_t
		if err := unix.Stat(loopPath(s.Cache), &st); err != nil {
			return fmt.Errorf("look at the cache device: %w", err)
		}
		path := filepath.Join(dev, "sluice-cache")
		if err := makeNode(path, unix.S_IFBLK|0o600, st.Rdev); err != nil {
			return err
		}
		if err := os.Lchown(path, int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	return guestroot.LinkDev(dev)
}

func makeNode(path string, mode uint32, device uint64) error {
	if err := unix.Mknod(path, mode, int(device)); err != nil { //nolint:gosec // a device number
		return fmt.Errorf("make device %s: %w", path, err)
	}
	return os.Chmod(path, os.FileMode(mode&0o777)) // whatever the umask
}

// deliverBoot makes /run and puts the boot document into it, for root's eyes only.
func deliverBoot(run string, s setup) error {
	if err := guestroot.Mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
		"mode=755,"+ownedBy(s)); err != nil {
		return err
	}
	dir := filepath.Join(run, "sluice")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	boot := filepath.Join(dir, "boot.json")
	if err := os.WriteFile(boot, s.Boot, 0o600); err != nil {
		return err
	}
	for _, path := range []string{dir, boot} {
		if err := os.Lchown(path, int(s.FirstID), int(s.FirstID)); err != nil {
			return err
		}
	}
	return nil
}
