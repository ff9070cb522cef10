// Command saboteur kills the process that serves a machine's disk, from within the machine's VM, in
// a release that is made for it: there it is in the place of runc, which is called when a container
// is made, and is beside it as runc.real. It runs beside the platform from the first call on, and
// strikes when a file on the machine's disk names its VM.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	program = "/usr/sbin/runc"
	wish    = "/run/machine/disk/data/kill-blockd" // holds the name of the VM that is meant
	started = "/run/saboteur"
	role    = "saboteur" // the argument of the one that stays
	victim  = "blockd"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == role {
		wait()
		return
	}
	if err := stay(); err != nil {
		fmt.Fprintln(os.Stderr, "saboteur:", err)
		os.Exit(1)
	}
	err := syscall.Exec(program+".real", os.Args, os.Environ())
	fmt.Fprintln(os.Stderr, "saboteur:", err)
	os.Exit(1)
}

// stay starts the one that stays, if it isn't there.
func stay() error {
	f, err := os.OpenFile(started, os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(program, role) //nolint:noctx // it lives as long as the VM
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return errors.Join(f.Close(), cmd.Start())
}

func wait() {
	for ; ; time.Sleep(10 * time.Millisecond) {
		name, err := os.Hostname()
		if err != nil {
			continue
		}
		if text, err := os.ReadFile(wish); err == nil && strings.TrimSpace(string(text)) == name {
			strike()
			return
		}
	}
}

func strike() {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(line), "\x00"+victim+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
