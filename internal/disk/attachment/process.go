package attachment

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
)

const holderPrefix = "sluice-disk"

// Process names one process of one boot of one host, for ever.
type Process struct {
	Host      string `json:"host"`
	Boot      string `json:"boot"`      // the kernel's boot id
	Namespace string `json:"namespace"` // the PID namespace that PID counts in
	PID       int    `json:"pid"`
	Start     uint64 `json:"start"` // clock ticks since boot; tells a reused PID
}

// Liveness is what can be told from here of a process.
type Liveness int

// A process of another host, boot or PID namespace is unknown.
const (
	Unknown Liveness = iota
	Alive
	Dead
)

// Self returns the present process.
func Self() (Process, error) {
	host, err := os.Hostname()
	if err != nil {
		return Process{}, errs.Wrap(errs.Internal, err, "read the host's name")
	}
	p := Process{Host: strings.ReplaceAll(host, "/", "_"), PID: os.Getpid()}
	if p.Boot, p.Namespace, err = surroundings(); err != nil {
		return Process{}, err
	}
	p.Start, _, err = stat(p.PID)
	return p, err
}

func surroundings() (boot, namespace string, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", "", errs.Wrap(errs.Internal, err, "read the boot id")
	}
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", "", errs.Wrap(errs.Internal, err, "read the PID namespace")
	}
	return strings.TrimSpace(string(b)), strings.Trim(strings.TrimPrefix(ns, "pid:"), "[]"), nil
}

// Holder returns what the process calls itself as the holder of a disk. It says all there is to
// know, so that whoever finds a disk open can tell whether its writer still lives, also without a
// record.
func (p Process) Holder() string {
	return fmt.Sprintf("%s/%s/%s/%s/%d/%d", holderPrefix, p.Host, p.Boot, p.Namespace,
		p.PID, p.Start)
}

// ParseHolder is the inverse of Holder; ok is false for holders of any other kind.
func ParseHolder(s string) (p Process, ok bool) {
	f := strings.Split(s, "/")
	if len(f) != 6 || f[0] != holderPrefix {
		return Process{}, false
	}
	pid, err1 := strconv.Atoi(f[4])
	start, err2 := strconv.ParseUint(f[5], 10, 64)
	return Process{Host: f[1], Boot: f[2], Namespace: f[3], PID: pid, Start: start}, err1 == nil &&
		err2 == nil && pid > 0
}

// Liveness tells whether the process lives. A process that has ended and was not waited for is
// dead, one that can't end because a thread of it is stuck in the kernel is alive.
func (p Process) Liveness() Liveness {
	boot, namespace, err := surroundings()
	if err != nil || boot != p.Boot || namespace != p.Namespace {
		return Unknown
	}
	start, state, err := stat(p.PID)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Dead
	case err != nil:
		return Unknown
	case start != p.Start:
		return Dead
	}
	if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID)); state == 'Z' &&
		err == nil && len(threads) <= 1 {
		return Dead
	}
	return Alive
}

// Stuck reports whether the process was killed and doesn't end, because a thread of it waits in the
// kernel. One that serves a device waits for itself then, and for ever. On its way to its end any
// process is so for a moment.
func (p Process) Stuck() bool {
	if p.Liveness() != Alive {
		return false
	}
	start, state, err := stat(p.PID)
	return err == nil && start == p.Start && state == 'Z'
}

// Free has the kernel give up the devices that a stuck process serves, so that it can end. It does
// nothing to any other.
func (p Process) Free() error {
	if !p.Stuck() {
		return nil
	}
	if _, err := fuseabort.Process(p.PID); err != nil {
		return errs.Wrap(errs.KindOf(err), err,
			"free process %d, which was killed and waits for its own device", p.PID)
	}
	return nil
}

// Signal sends a signal to this very process, never to another one that got its PID. NotFound if it
// is gone.
func (p Process) Signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
		if p.Liveness() == Alive { // since before the descriptor was opened, as its start says
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
		} else {
			err = unix.ESRCH
		}
	}
	switch {
	case errors.Is(err, unix.ESRCH):
		return errs.Wrap(errs.NotFound, err, "process %d is gone", p.PID)
	case errors.Is(err, unix.EPERM):
		return errs.Wrap(errs.Denied, err, "signal process %d", p.PID).
			WithRemedy("run as the user that attached the disk")
	case err != nil:
		return errs.Wrap(errs.Internal, err, "signal process %d", p.PID)
	}
	return nil
}

// stat reads a process's start time and state.
func stat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrNotExist
	}
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return 0, 0, errs.New(errs.Internal, "/proc/%d/stat is not understood", pid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0][0], err
}
