package frontend

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Sweep unmounts, lazily, every file system at or below dir in this mount namespace that lies on a
// block device of this package, and returns how many. It is for what a process that died has left:
// its loop device goes when its last mount does. Nothing below dir may be in use.
func Sweep(dir string) (int, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "sweep")
	}
	if err := EndOrphans(); err != nil {
		return 0, err
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "sweep %s", dir)
	}
	var targets []string
	for line := range strings.Lines(string(info)) {
		if target, ok := ownMount(line, dir); ok {
			targets = append(targets, target)
		}
	}
	for _, target := range slices.Backward(targets) { // what was mounted last goes first
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return 0, errs.Wrap(errs.Unavailable, err, "unmount %s", target)
		}
	}
	return len(targets), nil
}

// EndOrphans has the kernel fail what waits for NBD devices of this package whose process has died.
// With a FUSE device the kernel does so by itself.
func EndOrphans() error {
	link, err := openNBDLink()
	if err != nil {
		return nil //nolint:nilerr // without a client there is no device either
	}
	return link.endOrphans()
}

// ownMount returns the mount point of a line of mountinfo, if it is below dir and on a device of
// ours.
func ownMount(line, dir string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return "", false
	}
	target := unescape(fields[4])
	if target != dir && !strings.HasPrefix(target, strings.TrimSuffix(dir, "/")+"/") {
		return "", false
	}
	return target, IsOurs(fields[2])
}

// IsOurs reports whether a block device, as "major:minor", is or was one of this package, of
// whatever process.
func IsOurs(device string) bool {
	dir := "/sys/dev/block/" + device
	backing, err := os.ReadFile(dir + "/loop/backing_file")
	return err == nil && strings.Contains(string(backing), "/"+namePrefix) ||
		strings.HasPrefix(backendOf(dir), namePrefix)
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
