package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
)

// TestQEMUIsInAJail: whoever breaks out of a VM's kernel into its QEMU is a user that nothing
// belongs to, in namespaces with nothing in them, and can't become anybody else.
func TestQEMUIsInAJail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("jail-%d", os.Getpid()))
	d, err := newDriver(dir)
	if err != nil {
		t.Fatal(err)
	}
	var vms []runtime.VM
	users, rel := map[string]bool{}, release(t)
	for _, id := range []fleet.VMID{"00c0ffee", "00c0ffef"} {
		started, _ := startVM(t, d, runtime.Spec{ID: id, Release: rel, CacheBytes: 1 << 20})
		vms = append(vms, started)
		users[jailed(t, started.(*vm).Record.PID)] = true
	}
	if len(users) != 2 {
		t.Errorf("two VMs' QEMU have the users %v", users)
	}
	removeAndClose(t, d, vms...)
}

// jailed checks a QEMU process, and returns its user.
func jailed(t *testing.T, pid int) string {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		has[name] = strings.Join(strings.Fields(value), " ")
	}
	for name, want := range map[string]string{"Name": "qemu-system-x86", "Groups": "",
		"NoNewPrivs": "1", "Seccomp": "2", "NSpid": fmt.Sprintf("%d 1", pid),
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		"CapBnd": "0000000000000000", "CapInh": "0000000000000000"} {
		if has[name] != want {
			t.Errorf("%s is %q, want %q", name, has[name], want)
		}
	}
	user, rest, _ := strings.Cut(has["Uid"], " ")
	if user == "0" || rest != strings.Join([]string{user, user, user}, " ") {
		t.Errorf("its users are %q", has["Uid"])
	}
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		own, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(proc + "ns/" + ns)
		if err1 != nil || err2 != nil || own == its {
			t.Errorf("its namespace of %s is %q, the worker's %q (%v, %v)", ns, its, own, err1,
				err2)
		}
	}
	for _, path := range []string{"/etc/passwd", "/root", "/home", "/var", "/run", "/sys",
		"/proc/self", "/dev/kmsg", "/bin/sh", "/usr/bin/env"} {
		if _, err := os.Lstat(proc + "root" + path); err == nil {
			t.Errorf("it sees %s", path)
		}
	}
	mounts, err := os.ReadFile(proc + "mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		at, options := strings.Fields(line)[1], strings.Fields(line)[3]
		own := strings.HasSuffix(at, ".img") || strings.HasSuffix(at, ".log")
		if !own && !strings.HasPrefix(options, "ro,") || !strings.Contains(options, "nosuid") {
			t.Errorf("it has %s as %s", at, options)
		}
	}
	return user
}
