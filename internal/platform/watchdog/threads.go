package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Thread is a thread that can't run.
type Thread struct {
	TID   int
	State string // D: waits in the kernel, and can't be interrupted; T: was stopped
	Waits string // in what function of the kernel, where that is known
}

// describe describes the first of them, for people.
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

// Threads finds threads of a process that no longer run. It remembers how often and for how long
// each has run. Not safe for concurrent use.
type Threads struct {
	pid  int
	at   time.Time // of the last observation; zero: none
	seen map[int]thread
}

// thread is what the kernel counts of one.
type thread struct {
	state    string
	switches string        // how often it was put on and off a processor
	ran      time.Duration // on one
	waited   time.Duration // for one
}

// Observation is what a process did since the one before.
type Observation struct {
	// Stuck are the threads that have not run, and could not: they wait in the kernel without an
	// end, or were stopped.
	Stuck []Thread
	// Starved is the share of the time, 0 to 1, in which the process waited for a processor; 0 if
	// the kernel doesn't tell.
	Starved float64
}

// NewThreads observes the threads of process pid.
func NewThreads(pid int) *Threads { return &Threads{pid: pid, seen: map[int]thread{}} }

// Observe reads the threads. NotFound: the process has ended.
func (t *Threads) Observe() (Observation, error) {
	dirs, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(t.pid), "task"))
	if err != nil {
		return Observation{}, errs.Wrap(errs.NotFound, err, "look at the threads of process %d",
			t.pid)
	}
	now := time.Now()
	passed := now.Sub(t.at)
	seen := make(map[int]thread, len(dirs))
	var l Observation
	var waited time.Duration
	for _, d := range dirs {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		is, err := t.read(tid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return Observation{}, err
		}
		was, known := t.seen[tid]
		seen[tid] = is
		idle := known && is.switches == was.switches && is.ran == was.ran
		switch {
		case idle && (is.state == "D" || is.state == "T" || is.state == "t"):
			l.Stuck = append(l.Stuck, Thread{TID: tid, State: is.state, Waits: t.waits(tid)})
		case idle && is.state == "R":
			waited += passed // what a thread waits for at this moment isn't counted yet
		case known:
			waited += is.waited - was.waited
		}
	}
	if !t.at.IsZero() && passed > 0 {
		l.Starved = min(1, float64(waited)/float64(passed))
	}
	t.at, t.seen = now, seen
	return l, nil
}

func (t *Threads) path(tid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(t.pid), "task", strconv.Itoa(tid), file)
}

// read returns what the kernel counts of a thread.
func (t *Threads) read(tid int) (thread, error) {
	text, err := os.ReadFile(t.path(tid, "status"))
	if err != nil {
		return thread{}, err
	}
	var is thread
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); name {
		case "State":
			is.state, _, _ = strings.Cut(value, " ")
		case "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches":
			is.switches += value + " "
		}
	}
	is.ran, is.waited = t.times(tid)
	return is, nil
}

// times returns how long a thread has run and waited to run, in the kernel's
// Documentation/scheduler/sched-stats.rst; 0 where the kernel doesn't tell.
func (t *Threads) times(tid int) (ran, waited time.Duration) {
	text, err := os.ReadFile(t.path(tid, "schedstat"))
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, 0
	}
	r, _ := strconv.ParseInt(fields[0], 10, 64)
	w, _ := strconv.ParseInt(fields[1], 10, 64)
	return time.Duration(r), time.Duration(w)
}

// waits returns the kernel's function that a thread is in; "" where the kernel doesn't tell.
func (t *Threads) waits(tid int) string {
	text, err := os.ReadFile(t.path(tid, "wchan"))
	if err != nil || string(text) == "0" {
		return ""
	}
	return string(text)
}
