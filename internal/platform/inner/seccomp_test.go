package inner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/platform/ownview"
	"github.com/sluice-platform/sluice/test/attack/attempts"
)

// attack runs the attempts of user code in a container of its own that is as a machine's, but for
// the filter of sockets, and what change makes of its specification. Process 1 of this one is the
// attacker itself, so what is tried on it says nothing, and is left out.
func attack(t *testing.T, filter func() error, change func(*specs.Spec)) []attempts.Outcome {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o711); err != nil { // the container's root passes through
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "attack")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../../../test/guest/attack")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	bundle := filepath.Join(dir, "bundle")
	view := filepath.Join(dir, "view")
	if _, err := ownview.Make(view); err != nil {
		t.Fatal(err)
	}
	if err := writeBundle(bundle, program, view); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(bundle, "rootfs", "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tmp, idBase, idBase); err != nil {
		t.Fatal(err)
	}
	s := spec(program, view)
	s.Process.Args = []string{"/" + initBin, attempts.UserCode}
	s.Linux.CgroupsPath = fmt.Sprintf("/sluice-test/attack-%d", os.Getpid())
	change(s)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, why bytes.Buffer
	err = ownsync.Filter(func(*os.File) error {
		if err := filter(); err != nil {
			return err
		}
		cmd := exec.CommandContext(t.Context(), "runc", "--root", filepath.Join(dir, "runtime"),
			"run", "--bundle", bundle, filepath.Base(s.Linux.CgroupsPath))
		cmd.Stdout, cmd.Stderr = &out, &why
		return cmd.Run()
	})
	if err != nil {
		t.Fatalf("run: %v: %s%s", err, out.String(), why.String())
	}
	outcomes, err := attempts.Read(out.String(), attempts.Of(attempts.UserCode))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(outcomes, func(o attempts.Outcome) bool {
		return strings.Contains(o.Name, "/proc/1/") || strings.Contains(o.Name, "process 1")
	})
}

// TestAttemptsAreRefused: a container as a machine has it refuses each attempt, for the reason that
// it should.
func TestAttemptsAreRefused(t *testing.T) {
	for _, o := range attempts.Unrefused(attack(t, filterSockets, func(*specs.Spec) {})) {
		t.Error(o)
	}
}

// TestSeededHolesAreFound: with a part of the walls taken out, attempts get further than they
// should. It proves that the attempts can fail.
func TestSeededHolesAreFound(t *testing.T) {
	for name, hole := range map[string]struct {
		filter func() error
		change func(*specs.Spec)
		found  []string
	}{
		"no filter of calls": {filterSockets, func(s *specs.Spec) { s.Linux.Seccomp = nil },
			[]string{"clone3", "keyctl", "io_uring_setup", "handle page faults", "bpf",
				"unshare the user namespace", "open_tree", "read another's memory",
				"addresses that aren't random"}},
		"no filter of sockets": {func() error { return nil }, func(*specs.Spec) {},
			[]string{"a socket of VSOCK", "a socket of PACKET", "netlink of NETFILTER",
				"a socket of VSOCK, by socketcall of 32 bits", "a socket of VSOCK, of 32 bits",
				"a socket of VSOCK with bits that the kernel ignores"}},
		"all else allowed": {filterSockets, func(s *specs.Spec) {
			s.Linux.Seccomp.DefaultAction = specs.ActAllow
			s.Linux.Seccomp.DefaultErrnoRet = nil
		}, []string{"addresses that aren't random"}},
		"nothing masked": {filterSockets, func(s *specs.Spec) { s.Linux.MaskedPaths = nil },
			[]string{"learn from /proc/partitions", "learn from /proc/diskstats",
				"learn from /proc/cmdline", "learn from /sys/block",
				"learn from /sys/kernel/notes"}},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			for _, o := range attempts.Unrefused(attack(t, hole.filter, hole.change)) {
				found = append(found, o.Name)
				t.Log(o)
			}
			for _, want := range hole.found {
				if !slices.Contains(found, want) {
					t.Errorf("%q was refused all the same", want)
				}
			}
		})
	}
}
