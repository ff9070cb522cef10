package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Thread is a thread that can't run.
type Thread struct {
	TID   int
	State string // D: waits in the kernel, and can't be interrupted; T: was stopped
	Waits string // in what function of the kernel, where that is known
}

// describe tells of the first of them, for people.
func describe(stuck []Thread) string {
	t := stuck[0]
	text := fmt.Sprintf("its thread %d has not run for as long (state %s", t.TID, t.State)
	if t.Waits != "" {
		text += ", in " + t.Waits
	}
	text += ")"
	if len(stuck) > 1 {
		text += fmt.Sprintf(", nor have %d others", len(stuck)-1)
	}
	return text
}

// Threads remembers how often each thread of a process has run, by which those are found that no longer do. Not safe for
// concurrent use.
type Threads struct {
	pid  int
	runs map[int]string // by thread: its counts of context switches
}

// NewThreads returns a look at the threads of process pid.
func NewThreads(pid int) *Threads { return &Threads{pid: pid, runs: map[int]string{}} }

// Stuck returns the threads that have not run since the last call, and could not: they wait in the kernel without an end, or
// were stopped.
func (t *Threads) Stuck() ([]Thread, error) {
	dirs, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(t.pid), "task"))
	if err != nil {
		return nil, errs.Wrap(errs.NotFound, err, "look at the threads of process %d", t.pid)
	}
	runs := make(map[int]string, len(dirs))
	var stuck []Thread
	for _, d := range dirs {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		state, switches, err := t.look(tid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		runs[tid] = switches
		if t.runs[tid] == switches && (state == "D" || state == "T" || state == "t") {
			stuck = append(stuck, Thread{TID: tid, State: state, Waits: t.waits(tid)})
		}
	}
	t.runs = runs
	return stuck, nil
}

func (t *Threads) path(tid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(t.pid), "task", strconv.Itoa(tid), file)
}

// look returns a thread's state, and how often it has been put on and off a processor.
func (t *Threads) look(tid int) (state, switches string, err error) {
	text, err := os.ReadFile(t.path(tid, "status"))
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); name {
		case "State":
			state, _, _ = strings.Cut(value, " ")
		case "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches":
			switches += value + " "
		}
	}
	return state, switches, nil
}

// waits returns the kernel's function that a thread is in; "" where the kernel doesn't tell.
func (t *Threads) waits(tid int) string {
	text, err := os.ReadFile(t.path(tid, "wchan"))
	if err != nil || string(text) == "0" {
		return ""
	}
	return string(text)
}
