package sandbox

import (
	"bufio"
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
	"github.com/sluice-platform/sluice/internal/x/ioflusher"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// setupArg0 is the argv[0] by which this program knows that it has to become a VM's init.
const setupArg0 = "sluice-vm-setup"

const (
	controlFD = 3
	statusFD  = 4
	// initCgroup is the cgroup of the platform's processes, beside the inner container's. So they
	// never have to write out pages of the machine when they need memory. And with v2, a cgroup
	// that delegates controllers may have no processes.
	initCgroup = "init"
	cgroupRoot = "/sys/fs/cgroup" // as the VM sees it
	goByte     = 'g'
	execByte   = 'x'
)

// setup is the input of the setup process.
type setup struct {
	Root     string        `json:"root"` // an empty directory
	Release  string        `json:"release"`
	Boot     []byte        `json:"boot"`
	Hostname string        `json:"hostname"`
	Join     []string      `json:"join"` // cgroup.procs files
	Mounts   []cgroupMount `json:"mounts"`
	AllV2    bool          `json:"all_v2"` // what bounds the VM is in v2, and that is all it sees
	Cache    int           `json:"cache"`  // number of a loop device, or noCache
	Probe    bool          `json:"probe"`  // try what can be tried without a VM, and exit
}

// Child must be the first call in main. It returns at once, except in a process that a Driver has
// started to become a VM's init: there it never returns.
//
// It runs inside the VM's new namespaces, makes the VM's root there, and replaces itself by the
// release's init: nothing of the calling program is left in the VM.
func Child() {
	if len(os.Args) == 0 || os.Args[0] != setupArg0 {
		return
	}
	status := os.NewFile(statusFD, "status")
	control := os.NewFile(controlFD, "control")
	// Some of the following affects only the calling thread, so all of it must run on the one that
	// execs.
	runtime.LockOSThread()
	err := becomeInit(control, status)
	if err != nil {
		_, _ = io.WriteString(status, err.Error())
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// becomeInit returns only if it fails, or is only a probe.
func becomeInit(control, status *os.File) error {
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(statusFD)
	in := bufio.NewReader(control)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	var s setup
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("decode setup: %w", err)
	}
	if err := enterCgroups(s.Join); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if s.Probe {
		return probeInside(s.Root)
	}
	if err := makeRoot(s); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := ownUptime(); err != nil {
		return err
	}
	if err := confine(); err != nil {
		return err
	}
	// The worker writes here once it has made the link and recorded this process. End of file means
	// that the worker has died.
	if b, err := in.ReadByte(); err != nil || b != goByte {
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

// enterCgroups moves the process into its v1 cgroups; it was started in the v2 one. It then makes
// these the roots of its cgroup namespace.
func enterCgroups(procs []string) error {
	for _, file := range procs {
		if err := onhost.WriteFile(file, "0"); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	return nil
}

// hostCapabilities are the capabilities that root in a VM lacks: they affect the whole kernel.
func hostCapabilities() []uintptr {
	return []uintptr{
		unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_SYSLOG,
		unix.CAP_MAC_ADMIN,
		unix.CAP_MAC_OVERRIDE, unix.CAP_WAKE_ALARM, unix.CAP_BLOCK_SUSPEND, unix.CAP_AUDIT_CONTROL,
	}
}

func confine() error {
	for _, c := range hostCapabilities() {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	unix.Umask(0o022)
	// The worker's OOM score and limits may differ from a VM's. It may not be allowed to raise
	// limits, so errors are ignored.
	_ = onhost.WriteFile("/proc/self/oom_score_adj", "0")
	// A worker is an I/O flusher for the kernel, because its machines' flushes pass through it.
	// The processes of a VM are not.
	if err := ioflusher.Leave(); err != nil {
		return err
	}
	files := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil) != nil {
		var now unix.Rlimit
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &now); err != nil {
			return fmt.Errorf("read limit of open files: %w", err)
		}
		now.Cur = now.Max
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &now, nil); err != nil {
			return fmt.Errorf("raise limit of open files: %w", err)
		}
	}
	return nil
}

// execInit leaves the host's files behind and becomes init.
func execInit(s setup, status *os.File) error {
	if err := unix.Chdir(s.Root); err != nil {
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
	if _, err := status.Write([]byte{execByte}); err != nil {
		// The worker has just died. The VM is on record, so it is complete without the worker.
		_ = status.Close()
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root"}
	err = syscall.Exec("/"+initPath, []string{"/" + initPath, "init"}, env)
	return fmt.Errorf("run init: %w", err)
}

// enterInitCgroup moves init into a cgroup of its own, in every hierarchy that bounds memory.
func enterInitCgroup(s setup) error {
	own := memcg.Cgroup{Dir: filepath.Join(cgroupRoot, initCgroup), V2: s.AllV2}
	if !s.AllV2 {
		at := slices.IndexFunc(s.Mounts, func(m cgroupMount) bool {
			return slices.Contains(strings.Split(m.Options, ","), "memory")
		})
		if at < 0 {
			return nil // no memory controller: nothing is bounded
		}
		own.Dir = filepath.Join(cgroupRoot, s.Mounts[at].Dir, initCgroup)
	}
	if err := os.Mkdir(own.Dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup of init: %w", err)
	}
	if err := onhost.WriteFile(filepath.Join(own.Dir, "cgroup.procs"), "0"); err != nil {
		return fmt.Errorf("enter cgroup of init: %w", err)
	}
	if s.AllV2 { // now that its root has no process any more
		if err := onhost.Delegate(cgroupRoot); err != nil {
			return fmt.Errorf("delegate controllers: %w", err)
		}
	}
	if err := errors.Join(own.Limit(guestapi.PlatformMemory),
		own.Protect(guestapi.PlatformMemory)); err != nil {
		return fmt.Errorf("give the platform its memory: %w", err)
	}
	return nil
}
