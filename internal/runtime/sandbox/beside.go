package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/runtime/guestroot"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox/broker"
	"github.com/sluice-platform/sluice/internal/x/ioflusher"
)

// runBroker is the process beside a VM: real root, in a mount namespace of its own. It makes what
// takes the host's privileges, starts the process that becomes the VM's init, and serves the VM's
// disk until that has ended. It returns an error only until that process has its plan.
func runBroker(control, status *os.File) error {
	line, err := bufio.NewReader(control).ReadBytes('\n') // nothing follows it before we tell
	if err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	var s setup
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("decode setup: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	b := &beside{setup: s}
	if err := b.prepare(); err != nil {
		return err
	}
	if err := b.startInit(control, status); err != nil {
		return err
	}
	// From here on they are the child's alone. If the worker has died, the child ends, and so do
	// we.
	_ = control.Close()
	_ = status.Close()
	return b.serve()
}

// beside is the broker on its way.
type beside struct {
	setup    setup
	listener *net.UnixListener // nil: only a probe
	users    *os.File          // the VM's user namespace
	ended    *os.File          // a pidfd of its init
	cache    *os.File          // see holdCache
}

func (b *beside) root() string { return filepath.Join(b.setup.Dir, rootDir) }

// prepare makes the VM's root, as far as its own root couldn't, and goes there.
func (b *beside) prepare() error {
	if b.setup.Probe {
		if err := guestroot.Mount("tmpfs", b.root(), "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.Chdir(b.root())
	}
	if err := makeRoot(b.root(), b.setup); err != nil {
		return err
	}
	if err := b.holdCache(); err != nil {
		return err
	}
	if err := os.Chdir(b.root()); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// By its relative path: those of sockets are bounded.
	socket := strings.TrimPrefix(diskbroker.Socket, "/")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("listen for the VM: %w", err)
	}
	l.SetUnlinkOnClose(false)
	b.listener = l
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	return os.Lchown(socket, int(b.setup.FirstID), int(b.setup.FirstID))
}

// holdCache keeps the cache's loop device from being let go of, and taken by somebody else, while
// the VM has its node: the kernel detaches a device that is open only with its last user.
func (b *beside) holdCache() (err error) {
	if b.setup.Cache != noCache {
		b.cache, err = os.Open(loopPath(b.setup.Cache))
	}
	return err
}

// startInit starts the process that becomes the VM's init, and tells the worker of it. It is the
// worker's child, as this process is, so that the worker learns how it ends.
func (b *beside) startInit(control, status *os.File) error {
	planR, planW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer planW.Close()
	defer planR.Close()
	if err := inheritable(); err != nil {
		return err
	}
	if err := ownUptime(); err != nil {
		return err
	}
	ids := idMap(b.setup.FirstID)
	cmd := exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initArg0},
		Env:    []string{"GOMAXPROCS=1", "GOGC=off"},
		Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{control, status, planR},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_PARENT | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
				unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{}, Setsid: true,
		},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces: %w", err)
	}
	pid := cmd.Process.Pid
	if err := b.know(pid); err != nil {
		return err
	}
	if err := b.setup.Cgroups.Enter(pid); err != nil {
		return err
	}
	// Before it gets to work: else what it says may come before what we say of it.
	if _, err := fmt.Fprintf(status, "%c%d\n", pidByte, pid); err != nil {
		return fmt.Errorf("tell the worker: %w", err)
	}
	return json.NewEncoder(planW).Encode(b.setup)
}

// know opens what the broker has to know of the VM by, and has the kernel kill it last for lack of
// memory, as the platform in it asks for where it may.
func (b *beside) know(pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("open the VM's first process: %w", err)
	}
	b.ended = os.NewFile(uintptr(fd), "init") //nolint:gosec // a descriptor
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if b.users, err = os.Open(filepath.Join(proc, "ns/user")); err != nil {
		return fmt.Errorf("open the VM's user namespace: %w", err)
	}
	for _, p := range []string{proc, "/proc/self"} {
		_ = onhost.WriteFile(filepath.Join(p, "oom_score_adj"), lastToKill) // where we may
	}
	return nil
}

// lastToKill is the OOM score of the platform's processes, which package vminit asks for.
const lastToKill = "-900"

// inheritable sets what the VM's processes inherit, and couldn't set themselves.
func inheritable() error {
	unix.Umask(0o022)
	// A worker is an I/O flusher for the kernel, because its machines' flushes pass through it.
	// The processes of a VM are not.
	if err := ioflusher.Leave(); err != nil {
		return err
	}
	// The worker's limits may differ from a VM's. It may not be allowed to raise them, so errors
	// are ignored: then the highest that there is counts. Users of a VM are counted by themselves.
	for limit, most := range map[int]uint64{unix.RLIMIT_NOFILE: 1 << 20,
		unix.RLIMIT_NPROC: unix.RLIM_INFINITY, unix.RLIMIT_SIGPENDING: unix.RLIM_INFINITY} {
		if unix.Prlimit(0, limit, &unix.Rlimit{Cur: most, Max: most}, nil) == nil {
			continue
		}
		var now unix.Rlimit
		if err := unix.Prlimit(0, limit, nil, &now); err != nil {
			return fmt.Errorf("read limit %d: %w", limit, err)
		}
		now.Cur = now.Max
		if err := unix.Prlimit(0, limit, &now, nil); err != nil {
			return fmt.Errorf("raise limit %d: %w", limit, err)
		}
	}
	return nil
}

// leave gives the broker a root with nothing in it but devices, what the kernel tells of them, and
// the place for the disk. The VM has its own copy of the mounts that were made for it. And a mount
// of the host's that a broker kept would last, for whoever waits for its end, until all VMs have
// ended.
func (b *beside) leave() error {
	root := filepath.Join(b.setup.Dir, diskDir)
	if err := guestroot.Mount("tmpfs", root, "tmpfs", guestroot.NoProgram,
		"mode=700,size=64k"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "sys", diskDir} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"dev", "sys"} {
		if err := guestroot.Mount("/"+dir, filepath.Join(root, dir), "", unix.MS_BIND,
			""); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return os.Chdir("/")
}

// serve returns when the VM's init has ended, and with it all of its processes.
func (b *beside) serve() error {
	if err := b.leave(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	var g errgroup.Group
	if b.listener != nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("role", "broker")
		served := broker.New(broker.Config{Listener: b.listener, UID: b.setup.FirstID,
			Users: b.users, Dir: "/" + diskDir, Log: log})
		g.Go(func() error {
			err := served.Run(ctx)
			if err != nil {
				failed <- err
				cancel()
			}
			return nil
		})
	}
	for {
		err := onhost.WaitReadable(ctx, b.ended, onhost.ConsoleInterval)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return <-failed
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
}
