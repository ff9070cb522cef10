package watchdog

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script is what is seen at each look, and when the process must count as stuck.
type script struct {
	name  string
	look  func(i int) Sample // the time is added
	stuck time.Duration      // 0: never
	words string
}

func TestJudge(t *testing.T) {
	waiting := Device{Done: 7, InFlight: 3}
	hung := []Thread{{TID: 12, State: "D", Waits: "folio_wait_bit"}}
	const ever = 10 * time.Minute
	for _, c := range []script{
		{name: "idle", look: func(int) Sample {
			return Sample{Answered: true,
				Device: Device{Done: 7}}
		}},
		{name: "busy", look: func(i int) Sample {
			return Sample{Answered: true,
				Device: Device{Done: uint64(i), InFlight: 64}}
		}},
		{name: "a flush of much to a slow store", look: func(i int) Sample {
			return Sample{Answered: true, Device: waiting, Store: uint64(i / 5)}
		}},
		{name: "the store has stalled",
			look: func(int) Sample { return Sample{Answered: true, Device: waiting, Waits: true} }},
		{name: "nothing is done", look: func(int) Sample {
			return Sample{Answered: true,
				Device: waiting}
		},
			stuck: idle, words: "3 requests under way"},
		{name: "answers now and then", look: func(i int) Sample {
			return Sample{Answered: i%4 == 0,
				Device: Device{Done: uint64(i), InFlight: 1}, Stuck: hung}
		}},
		{name: "does nothing, and could", look: func(int) Sample { return Sample{} }, stuck: silent,
			words: "not answered for 1m0s"},
		{name: "gets half of the processor that it asks for",
			look:  func(int) Sample { return Sample{Starved: 0.5} },
			stuck: 2 * silent, words: "not answered for 2m0s"},
		{name: "gets no processor", look: func(i int) Sample {
			return Sample{Answered: i%250 == 249,
				Starved: 1}
		}},
		{name: "a thread hangs, and the others get no processor",
			look:  func(int) Sample { return Sample{Stuck: hung, Starved: 1} },
			stuck: 10 * silentStuck, words: "thread 12"},
		{name: "a thread hangs", look: func(int) Sample { return Sample{Stuck: hung} },
			stuck: silentStuck + Interval, words: "folio_wait_bit"},
		{name: "threads wait in turn", look: func(i int) Sample {
			if i%3 == 0 {
				return Sample{}
			}
			return Sample{Stuck: hung}
		}, stuck: silent},
		{name: "silent, then stuck", look: func(i int) Sample {
			if i < 10 {
				return Sample{}
			}
			return Sample{Stuck: hung}
		}, stuck: 10*Interval + silentStuck, words: "thread 12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j Judge
			begin := time.Unix(0, 0)
			for i := range int(ever / Interval) {
				s := c.look(i)
				s.At = begin.Add(time.Duration(i) * Interval)
				why := j.Add(s)
				if why == "" {
					continue
				}
				at := s.At.Sub(begin)
				if c.stuck == 0 || at < c.stuck || at > c.stuck+2*Interval ||
					!strings.Contains(why, c.words) {
					t.Fatalf("stuck after %v (want %v): %s", at, c.stuck, why)
				}
				return
			}
			if c.stuck != 0 {
				t.Fatal("not found to be stuck")
			}
		})
	}
}

// A VM that was paused, or got no processor at all, is not judged by a clock that went on.
func TestJudgeAfterAPause(t *testing.T) {
	var j Judge
	at := time.Unix(0, 0)
	for range 100 {
		at = at.Add(time.Hour)
		if why := j.Add(Sample{At: at, Stuck: []Thread{{TID: 1, State: "D"}}}); why != "" {
			t.Fatal(why)
		}
	}
}

func TestParseDevice(t *testing.T) {
	got, err := parseDevice("  10 0 80 1 20 0 160 2 5 3 3 4 0 32 0 6 1\n")
	if want := (Device{Done: 10 + 20 + 4 + 6, InFlight: 5}); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := parseDevice("1 0 0 0 2 0 0 0 3 0 0"); err != nil ||
		got != (Device{Done: 3, InFlight: 3}) {
		t.Errorf("an old kernel's: %+v %v", got, err)
	}
	if _, err := parseDevice("1 2 3"); err == nil {
		t.Error("three fields")
	}
}

func TestThreads(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	threads := NewThreads(cmd.Process.Pid)
	look := func() []Thread {
		t.Helper()
		l, err := threads.Observe()
		if err != nil {
			t.Fatal(err)
		}
		return l.Stuck
	}
	look()
	if stuck := look(); len(stuck) != 0 {
		t.Errorf("one that sleeps: %+v", stuck)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		look()
		if stuck := look(); len(stuck) == 1 && stuck[0].TID == cmd.Process.Pid &&
			stuck[0].State == "T" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("one that was stopped isn't found")
		}
	}
	if _, err := NewThreads(os.Getpid() + 1<<22).Observe(); err == nil {
		t.Error("no process")
	}
}

// TestStarved: a process that could run and gets no processor is told from one that sleeps and from
// one that runs.
func TestStarved(t *testing.T) {
	starved := func(pid int, holds func(float64) bool) (last float64) {
		t.Helper()
		threads := NewThreads(pid)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(
			200 * time.Millisecond) {
			l, err := threads.Observe()
			if err != nil {
				t.Fatal(err)
			}
			if last = l.Starved; holds(last) {
				return last
			}
		}
		t.Fatalf("pid %d is never seen so, at last as %v", pid, last)
		return last
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	var one unix.CPUSet
	for cpu := range 1024 {
		if cpus.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	var spinning [8]int
	for i := range spinning {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &one); err != nil {
			t.Fatal(err)
		}
		spinning[i] = cmd.Process.Pid
	}
	starved(spinning[0], func(s float64) bool { return s > 0.5 })
	sleeping := exec.CommandContext(t.Context(), "sleep", "600")
	if err := sleeping.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleeping.Process.Kill()
		_ = sleeping.Wait()
	})
	for range 2 { // the first look knows nothing yet
		starved(sleeping.Process.Pid, func(s float64) bool { return s < 0.1 })
	}
}
