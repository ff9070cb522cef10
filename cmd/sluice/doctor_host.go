package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// checkHost tries, rather than asks, what the sandbox runtime needs of this host.
func checkHost(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	if os.Geteuid() != 0 {
		return []finding{found("root", "", errs.New(errs.Denied, "a worker needs root").WithRemedy(
			"run as root, or with --host=false for the fleet alone"))}
	}
	type check struct {
		name string
		try  func(context.Context) (string, error)
	}
	var findings []finding
	for _, c := range []check{
		{"fuse", checkFUSE}, {"loop devices", checkLoop}, {"user namespaces", checkUserNamespace},
		{"idmapped mounts", checkIDMap}, {"cgroups", checkCgroups}, {"runc", checkRunc},
		{"mkfs.ext4", checkMkfs},
		{"sync of one machine", checkSync}, {"process ids", checkProcessIDs},
		{"neighbour table", checkNeighbours},
	} {
		detail, err := c.try(ctx)
		findings = append(findings, found(c.name, detail, err))
	}
	return findings
}

func openDevice(path, remedy string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err, "open %s", path).WithRemedy("%s", remedy)
	}
	f.Close()
	return path, nil
}

func checkFUSE(context.Context) (string, error) { return openDevice("/dev/fuse", "modprobe fuse") }

func checkLoop(context.Context) (string, error) {
	return openDevice("/dev/loop-control", "modprobe loop")
}

// userNamespaceCommand is a process in a user namespace of its own that waits for its stdin to end.
func userNamespaceCommand(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "cat")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS |
		syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
		GidMappingsEnableSetgroups: true}
	return cmd
}

func checkUserNamespace(ctx context.Context) (string, error) {
	if err := userNamespaceCommand(ctx).Run(); err != nil {
		return "", errs.Wrap(errs.Unsupported, err, "run a process in a user namespace").
			WithRemedy(
				"sysctl -w user.max_user_namespaces=65536, and no seccomp filter around this process")
	}
	return "65536 ids mapped", nil
}

// checkIDMap maps the owner ids of a directory, on the first file system here that can.
func checkIDMap(ctx context.Context) (string, error) {
	cmd := userNamespaceCommand(ctx)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err,
			"run a process in a user namespace").WithRemedy("see user namespaces")
	}
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	userns, err := os.Open(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/user"))
	if err != nil {
		return "", errs.Wrap(errs.Internal, err, "open a user namespace")
	}
	defer userns.Close()
	var last error
	for _, dir := range []string{os.TempDir(), "/", "/dev/shm", "/run"} {
		if last = tryIDMap(dir, int(userns.Fd())); last == nil {
			return "works on " + dir, nil
		}
	}
	return "", errs.Wrap(errs.Unsupported, last,
		"make an idmapped mount").WithRemedy("use a kernel of 5.12 or newer (ext4)")
}

func tryIDMap(dir string, userns int) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)})
}

// checkCgroups wants the controllers that bound a VM, in either version, as a worker does.
func checkCgroups(context.Context) (string, error) {
	l, err := onhost.HostLayout()
	if err != nil {
		return "", err
	}
	if err := l.CheckLimits(); err != nil {
		return "", err
	}
	detail := l.Describe()
	if _, err := l.AllV2(); err != nil {
		return detail + "; for --runtime qemu alone", nil
	}
	return detail, nil
}

// checkSync tries what keeps a machine's sync from waiting for the disks of all others.
func checkSync(context.Context) (string, error) {
	if err := ownsync.Filter(func(*os.File) error { return nil }); err != nil {
		return "", err
	}
	return "seccomp user notification", nil
}

func checkRunc(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if err != nil {
		return "", errs.Wrap(errs.NotFound, err, "run runc").WithRemedy("apt-get install runc")
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first, nil
}

func checkMkfs(context.Context) (string, error) {
	path, err := exec.LookPath("mkfs.ext4")
	if errors.Is(err, exec.ErrNotFound) {
		if _, statErr := os.Stat("/usr/sbin/mkfs.ext4"); statErr == nil {
			return "/usr/sbin/mkfs.ext4", nil
		}
	}
	if err != nil {
		return "", errs.Wrap(errs.NotFound, err,
			"find mkfs.ext4").WithRemedy("apt-get install e2fsprogs")
	}
	return path, nil
}
