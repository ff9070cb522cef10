package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// The argv[0] by which this program knows that it has to become a VM's broker, or its init.
const (
	brokerArg0 = "sluice-vm-broker"
	initArg0   = "sluice-vm-setup"
)

const (
	controlFD = 3
	statusFD  = 4
	planFD    = 5 // of init: what the broker was told
	// initCgroup is the cgroup of the platform's processes but blockd, beside the container's.
	// So they never have to write out pages of the machine when they need memory. And with v2, a
	// cgroup that delegates controllers may have no processes.
	initCgroup = "init"
	cgroupRoot = "/sys/fs/cgroup" // as the VM sees it
	goByte     = 'g'
	execByte   = 'x'
	pidByte    = 1
)

// setup is the input of the broker, and of the process that becomes init.
type setup struct {
	Dir      string         `json:"dir"` // the VM's, with rootDir and diskDir
	Release  string         `json:"release"`
	Boot     []byte         `json:"boot"`
	Hostname string         `json:"hostname"`
	Cgroups  onhost.Cgroups `json:"cgroups"`
	Mounts   []cgroupMount  `json:"mounts"`
	AllV2    bool           `json:"all_v2"` // what bounds the VM is in v2, and that is all it sees
	Cache    int            `json:"cache"`  // number of a loop device, or noCache
	FirstID  uint32         `json:"first_id"`
	Probe    bool           `json:"probe"` // try what can be tried without a VM, and exit
}

// Child must be the first call in main. It returns at once, except in a process that a Driver has
// started beside a VM or to become its init: there it never returns.
//
// The broker stays what it is, outside of the VM. Init is born in the VM's namespaces, completes
// the VM's root there, and replaces itself by the release's init: nothing of the calling program is
// left in the VM.
func Child() {
	if len(os.Args) == 0 || os.Args[0] != brokerArg0 && os.Args[0] != initArg0 {
		return
	}
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(statusFD)
	status := os.NewFile(statusFD, "status")
	control := os.NewFile(controlFD, "control")
	// Some of the following affects only the calling thread, so all of it must run on the one that
	// starts a child, or execs.
	runtime.LockOSThread()
	become := becomeInit
	if os.Args[0] == brokerArg0 {
		become = runBroker
	}
	if err := become(control, status); err != nil {
		_, _ = io.WriteString(status, err.Error())
		_, _ = io.WriteString(os.Stderr, os.Args[0]+": "+err.Error()+"\n")
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// becomeInit returns only if it fails, or is only a probe. It runs as root of the VM's user
// namespace, in the directory that is to be the VM's root.
func becomeInit(control, status *os.File) error {
	unix.CloseOnExec(planFD)
	var s setup
	// The broker writes it once this process is in the VM's cgroups.
	plan := os.NewFile(planFD, "plan")
	if err := json.NewDecoder(plan).Decode(&s); err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	_ = plan.Close()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if s.Probe {
		return probeInside(status)
	}
	if err := completeRoot(s); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	// The worker writes here once it has made the link and recorded this process. End of file means
	// that the worker has died.
	var b [1]byte
	if _, err := io.ReadFull(control, b[:]); err != nil || b[0] != goByte {
		return errors.New("the worker went away")
	}
	if err := onhost.LoopbackUp(); err != nil {
		return err
	}
	if err := onhost.BringUp(guestapi.LinkName, guestapi.GuestLinkIP); err != nil {
		return err
	}
	if err := onhost.PinPeer(guestapi.LinkName, guestapi.HostLinkIP,
		onhost.HostLinkMAC); err != nil {
		return err
	}
	return execInit(s, status)
}

// uselessCapabilities are the capabilities that root in a VM lacks even in its own namespaces: they
// are about the whole kernel, and mean nothing there.
func uselessCapabilities() []uintptr {
	return []uintptr{
		unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_SYSLOG,
		unix.CAP_MAC_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON,
		unix.CAP_MAC_OVERRIDE, unix.CAP_WAKE_ALARM, unix.CAP_BLOCK_SUSPEND, unix.CAP_AUDIT_CONTROL,
	}
}

func dropCapabilities() error {
	for _, c := range uselessCapabilities() {
		// EINVAL: the kernel is older than it
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil &&
			!errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// leaveHost makes the current directory the root, and leaves the host's files behind. The mounts
// that come from the broker can't be taken apart here, so it is a copy of them that becomes the
// root, as a whole.
func leaveHost() error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, ".",
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("copy root: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, ".",
		unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach root: %w", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	return nil
}

// execInit leaves the host behind and becomes init.
func execInit(s setup, status *os.File) error {
	if err := leaveHost(); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return fmt.Errorf("set stdin: %w", err)
	}
	if err := enterInitCgroup(s); err != nil {
		return err
	}
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	// An ignored signal stays ignored over an exec, a caught one doesn't.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	if err := filterCalls(); err != nil {
		return err
	}
	if _, err := status.Write([]byte{execByte}); err != nil {
		// The worker has just died. The VM is on record, so it is complete without the worker.
		_ = status.Close()
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root"}
	err = syscall.Exec("/"+initPath, []string{"/" + initPath, "init"}, env)
	return fmt.Errorf("run init: %w", err)
}

// enterInitCgroup moves init into a cgroup of its own, in every hierarchy that bounds memory, and
// makes blockd's.
func enterInitCgroup(s setup) error {
	root := cgroupRoot
	if !s.AllV2 {
		at := slices.IndexFunc(s.Mounts, func(m cgroupMount) bool {
			return slices.Contains(strings.Split(m.Options, ","), "memory")
		})
		if at < 0 {
			return nil // no memory controller: nothing is bounded
		}
		root = filepath.Join(cgroupRoot, s.Mounts[at].Dir)
	}
	own := memcg.Cgroup{Dir: filepath.Join(root, initCgroup), V2: s.AllV2}
	blockd := memcg.Cgroup{Dir: filepath.Join(root, guestapi.BlockdCgroup), V2: s.AllV2}
	for _, g := range []memcg.Cgroup{own, blockd} {
		if err := os.Mkdir(g.Dir, 0o755); err != nil {
			return fmt.Errorf("make cgroups of the platform: %w", err)
		}
	}
	if err := own.Enter(); err != nil {
		return fmt.Errorf("enter cgroup of init: %w", err)
	}
	if s.AllV2 { // now that its root has no process any more
		if err := onhost.Delegate(cgroupRoot); err != nil {
			return fmt.Errorf("delegate controllers: %w", err)
		}
	}
	const rest = guestapi.PlatformMemory - guestapi.BlockdMemory
	if err := errors.Join(own.Limit(rest), own.Protect(rest), blockd.Limit(guestapi.BlockdMemory),
		blockd.Protect(guestapi.BlockdMemory)); err != nil {
		return fmt.Errorf("give the platform its memory: %w", err)
	}
	return nil
}
