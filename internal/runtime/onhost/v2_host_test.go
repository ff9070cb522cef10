package onhost

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/v2host"
)

// childEnv makes a process of this test binary do what it says, a word and an argument.
const childEnv = "SLUICE_ONHOST_CHILD"

func TestMain(m *testing.M) {
	v2host.Main()
	if role := os.Getenv(childEnv); role != "" {
		if err := playRole(role); err != nil {
			fmt.Println(errs.KindOf(err), err, "TRY", errs.RemedyOf(err))
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestOnV2Alone runs this package's tests of real cgroups on a kernel that has v2 alone.
func TestOnV2Alone(t *testing.T) {
	v2host.Run(t, v2host.Host{Package: "internal/runtime/onhost", Run: "^TestV2",
		Modules: []string{"loop"}, Kernel: v2host.PureV2})
}

// TestOnMixedHost runs those of a host whose controllers are some in v1, some in v2.
func TestOnMixedHost(t *testing.T) {
	v2host.Run(t, v2host.Host{Package: "internal/runtime/onhost", Run: "^TestMixed"})
}

// playRole is a process in a cgroup. It says so when it has done its work, and stays until its
// stdin ends.
func playRole(role string) error {
	what, argument, _ := strings.Cut(role, " ")
	var err error
	var held []byte
	switch what {
	case "allocate": // MiB
		var mib int
		if mib, err = strconv.Atoi(argument); err == nil {
			held, err = unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE,
				unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
		}
	case "read": // a file, into the page cache
		var f *os.File
		if f, err = os.Open(argument); err == nil {
			_, err = io.Copy(io.Discard, f)
		}
	case "create": // a VM's cgroups, as a worker does
		err = createAs(argument)
	case "container": // the same, in a namespace that shows its own cgroup as the root
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err == nil {
			err = unix.Unmount("/sys/fs/cgroup", 0)
		}
		if err == nil {
			err = unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
		}
		if err == nil {
			err = createAs(argument)
		}
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	_ = held
	return err
}

// createAs makes cgroups below a parent.
func createAs(parent string) error {
	l, err := HostLayout()
	if err != nil {
		return err
	}
	return Cgroups{Layout: l, Parent: parent, ID: "0123abcd"}.Create()
}

// child is a process that plays a role in a cgroup.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  string // its first line
}

// play starts one, waits until it has done its work or failed, and ends it with the test.
func play(t *testing.T, cgroup, role string) *child {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return begin(t, cmd)
}

func begin(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{cmd: cmd}
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	buf := make([]byte, 4096)
	n, _ := out.Read(buf)
	c.said = strings.TrimSpace(string(buf[:n]))
	return c
}

// end may be called again.
func (c *child) end() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait()
}
