package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// logServer is a fleet whose worker answers each request for web-1's log by what comes next in a
// script.
type logServer struct {
	*cli
	mu     sync.Mutex
	script []func(w http.ResponseWriter)
	asked  []url.Values
}

func newLogServer(t *testing.T, script ...func(w http.ResponseWriter)) *logServer {
	t.Helper()
	s := &logServer{cli: story(t), script: script}
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Query())
		var next func(http.ResponseWriter)
		if len(s.script) > 0 {
			next, s.script = s.script[0], s.script[1:]
		}
		s.mu.Unlock()
		if next == nil {
			http.Error(w, "the script has ended", http.StatusTeapot)
			return
		}
		next(w)
	}))
	t.Cleanup(worker.Close)
	s.fleet.SetWorkerURL(worker.URL)
	return s
}

func (s *logServer) machine(change func(m *fleet.Machine)) {
	s.fleet.Update(func(tx *httpapitest.Tx) { change(&tx.Machines["01000000000001"].Machine) })
}

// says writes lines of one incarnation's log and flushes them.
func says(w http.ResponseWriter, instance string, lines ...string) {
	w.Header().Set(api.HeaderInstance, instance)
	for _, line := range lines {
		_, _ = io.WriteString(w, line)
	}
	_ = http.NewResponseController(w).Flush()
}

// at is a line of a second.
func at(second int, text string) string {
	return fmt.Sprintf("2026-11-30T10:00:%02d.000000Z %s\n", second, text)
}

// TestLogsFollowOverAMove: each line is shown once, whatever becomes of the connection and of the
// machine.
func TestLogsFollowOverAMove(t *testing.T) {
	var s *logServer
	first := []string{at(1, "web stdout one"), at(2, "web stdout two"),
		at(2, "web stdout also two")}
	s = newLogServer(t,
		func(w http.ResponseWriter) { // broken off within a line
			says(w, "A", append(first, "2026-11-30T10:00:03.000000Z web std")...)
			panic(http.ErrAbortHandler)
		},
		func(w http.ResponseWriter) { // the same VM, after a while
			old := []string{at(0, "web stderr older than the tail")}
			says(w, "A", append(append(old, first...), at(2, "web stdout the third of two"),
				at(2, "web stderr on the other stream"), at(3, "web stdout three"))...)
			s.machine(func(m *fleet.Machine) {
				m.Placement.Worker, m.State = "w1",
					fleet.MachineMoving
			})
			time.AfterFunc(300*time.Millisecond,
				func() { s.machine(func(m *fleet.Machine) { m.State = fleet.MachineStarted }) })
		},
		func(w http.ResponseWriter) { // it isn't up yet over there
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"kind":"unavailable","message":"not yet"}`)
		},
		func(w http.ResponseWriter) { // a host whose clock is behind
			says(w, "B", at(1, "web stdout begins"), at(2, "web stdout goes on"))
			s.machine(func(m *fleet.Machine) {
				m.Desired, m.State = fleet.DesiredStopped,
					fleet.MachineStopped
			})
		})
	stdout, stderr, code := s.run("machine", "logs", "web-1", "-f", "-n", "3")
	want := strings.Join(first, "") + at(2, "web stdout the third of two") + at(2,
		"web stderr on the other stream") + at(3, "web stdout three") +
		at(1, "web stdout begins") + at(2, "web stdout goes on")
	if code != 0 || stdout != want {
		t.Errorf("exit %d\ngot\n%s\nwant\n%s", code, stdout, want)
	}
	if want := "machine web-1 moved to w1; its log begins anew\nthe log ended, because machine web-1 is stopped\n"; !strings.HasSuffix(stderr, want) {
		t.Errorf("stderr %q, want %q", stderr, want)
	}
	for i, lines := range []string{"3", "-1", "-1", "-1"} {
		if got := s.asked[i]; got.Get("lines") != lines || got.Get("follow") != "1" {
			t.Errorf("request %d: %v, want lines=%s", i, got, lines)
		}
	}
}

// TestLogsFollowOnlyNew: with --tail 0 nothing older is shown, but all of what a new VM wrote.
func TestLogsFollowOnlyNew(t *testing.T) {
	var s *logServer
	s = newLogServer(t,
		func(w http.ResponseWriter) { says(w, "A") },
		func(w http.ResponseWriter) { says(w, "A") },
		func(w http.ResponseWriter) { says(w, "B") },
		func(w http.ResponseWriter) {
			says(w, "B", at(1, "web stdout new"))
			s.fleet.Update(func(tx *httpapitest.Tx) { delete(tx.Machines, "01000000000001") })
		})
	stdout, stderr, code := s.run("machine", "logs", "web-1", "--follow", "--tail", "0",
		"--service", "web")
	if code != 0 || stdout != at(1, "web stdout new") ||
		!strings.Contains(stderr, "was started anew on w2; its log begins anew\n") ||
		!strings.HasSuffix(stderr, "machine web-1 was destroyed\n") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	for i, lines := range []string{"0", "0", "0", "-1"} {
		if got := s.asked[i]; got.Get("lines") != lines || got.Get("service") != "web" {
			t.Errorf("request %d: %v, want lines=%s", i, got, lines)
		}
	}
}

// TestLogsFollowEnds: with what the machine has come to, at a refusal, and without a word at an
// interrupt.
func TestLogsFollowEnds(t *testing.T) {
	refused := func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }
	s := newLogServer(t, refused)
	if _, stderr, code := s.run("machine", "logs", "web-1", "-f"); code != exitDenied ||
		stderr == "" {
		t.Errorf("the first refused: exit %d, %q", code, stderr)
	}
	s = newLogServer(t, func(w http.ResponseWriter) { says(w, "A") }, refused)
	if _, stderr, code := s.run("machine", "logs", "web-1", "-f"); code != exitDenied ||
		stderr == "" {
		t.Errorf("a later one refused: exit %d, %q", code, stderr)
	}
	s = newLogServer(t, func(w http.ResponseWriter) {
		says(w, "A")
		s.machine(func(m *fleet.Machine) { m.State, m.Reason = fleet.MachineFailed, "no disk" })
	})
	if _, stderr, code := s.run("machine", "logs", "web-1", "-f"); code != 0 ||
		stderr != "the log ended, because machine web-1 has failed: no disk\n" {
		t.Errorf("failed: exit %d, %q", code, stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s = newLogServer(t, func(w http.ResponseWriter) {
		says(w, "A", at(1, "web stdout x"))
		cancel()
	})
	if stdout, stderr, code := s.runContext(ctx, "machine", "logs", "web-1", "-f"); code != 0 ||
		stderr != "" || stdout != "" && stdout != at(1, "web stdout x") {
		t.Errorf("interrupted: exit %d, %q, %q", code, stdout, stderr)
	}
}

// TestLogsTailAndSince: what is asked for, and what of it is shown.
func TestLogsTailAndSince(t *testing.T) {
	for args, want := range map[string]struct{ lines, stdout string }{
		"":                             {"200", at(1, "web stdout a") + at(2, "web stdout b")},
		"-n 7":                         {"7", at(1, "web stdout a") + at(2, "web stdout b")},
		"--tail 7":                     {"7", at(1, "web stdout a") + at(2, "web stdout b")},
		"--lines 7":                    {"7", at(1, "web stdout a") + at(2, "web stdout b")},
		"--tail all":                   {"-1", at(1, "web stdout a") + at(2, "web stdout b")},
		"--tail=-1":                    {"-1", at(1, "web stdout a") + at(2, "web stdout b")},
		"--since 2026-11-30T10:00:02Z": {"-1", at(2, "web stdout b")},
		"--since 2026-11-30T11:00:01.5+01:00 -n 9":   {"9", at(2, "web stdout b")},
		"--since 2026-11-30T10:00:03Z --service web": {"-1", ""},
	} {
		s := newLogServer(t, func(w http.ResponseWriter) {
			says(w, "A", at(1, "web stdout a"),
				at(2, "web stdout b"))
		})
		stdout, stderr, code := s.run(append([]string{"machine", "logs", "web-1"},
			strings.Fields(args)...)...)
		if code != 0 || stdout != want.stdout || stderr != "" ||
			s.asked[0].Get("lines") != want.lines {
			t.Errorf("%s: exit %d, asked %v, %q, %q", args, code, s.asked[0], stdout, stderr)
		}
	}
	now := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
	if got, err := parseSince("1h30m", now); err != nil || got != "2026-11-30T08:30:00.000000Z" {
		t.Errorf("%q, %v", got, err)
	}
}
