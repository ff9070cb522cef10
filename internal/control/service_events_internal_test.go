package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// services is a machine's history and what is reported of its services.
type services struct {
	t    *testing.T
	ring []fleet.MachineEvent
	base fleet.MachineEvent
	now  time.Time
	of   map[string]fleet.ServiceReport
}

func newServices(t *testing.T) *services {
	t.Helper()
	now := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
	return &services{t: t, now: now, base: fleet.MachineEvent{Instance: "A", Source: "worker/w1"},
		of:   map[string]fleet.ServiceReport{},
		ring: []fleet.MachineEvent{{Time: now, Event: eventStart, Instance: "A"}}}
}

// report takes in what is reported now, and checks that nothing of it is news a second time.
func (s *services) report() {
	s.t.Helper()
	var all []fleet.ServiceReport
	for _, name := range slices.Sorted(maps.Keys(s.of)) {
		all = append(all, s.of[name])
	}
	h := &serviceHistory{ring: slices.Clone(s.ring), base: s.base}
	h.tell(all)
	s.ring = h.ring
	if h = (&serviceHistory{ring: slices.Clone(s.ring), base: s.base}); h.tell(all) {
		s.t.Fatalf("told twice: %+v", h.ring)
	}
}

func (s *services) change(name string, change func(r *fleet.ServiceReport)) {
	s.t.Helper()
	s.now = s.now.Add(time.Second)
	r := s.of[name]
	r.Name = name
	change(&r)
	s.of[name] = r
	s.report()
}

func (s *services) start(name, state string) {
	s.t.Helper()
	s.change(name, func(r *fleet.ServiceReport) { r.State, r.StartedAt = state, s.now })
}

func (s *services) exit(name, how string) {
	s.t.Helper()
	s.change(name, func(r *fleet.ServiceReport) {
		r.State, r.Exit, r.ExitedAt, r.RetryMS, r.Unstartable = "failed", how, s.now, 1600,
			strings.Contains(how, "not found")
		r.Restarts++
	})
}

// story is the history in short.
func (s *services) story() string {
	var all []string
	for _, e := range s.ring {
		text := e.Event
		for _, key := range []string{"service", "reason", "times", "restarts"} {
			if v := e.Info[key]; v != "" {
				text += " " + v
			}
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func (s *services) want(want string) {
	s.t.Helper()
	if got := s.story(); got != want {
		s.t.Errorf("history\n%s\nwant\n%s", got, want)
	}
}

// TestServiceHistory: starts share a line, an end is told with its reason and count, and so is that
// a service is back.
func TestServiceHistory(t *testing.T) {
	s := newServices(t)
	s.start("a", "running")
	s.start("a", "ready") // by somebody who restarted it
	s.start("b", "running")
	s.want("start, service_start a b")
	s.exit("a", "exit code 3")
	s.start("a", "running")
	s.exit("a", "exit code 3")
	s.exit("c", "nonesuch: command not found")
	s.want(
		"start, service_start a b, service_exit a exit code 3 2 2, service_fail c nonesuch: command not found 1")
	e := s.ring[2]
	if e.Info["again_in"] != "1.6s" || e.Info["since"] == "" || !e.Time.Equal(s.of["a"].ExitedAt) ||
		e.Instance != "A" || e.Source != "worker/w1" {
		t.Errorf("%+v", e)
	}
	// what came too fast to be reported each
	s.change("a", func(r *fleet.ServiceReport) { r.Restarts = 9 })
	s.want(
		"start, service_start a b, service_fail c nonesuch: command not found 1, service_exit a exit code 3 9 9")
	s.start("a", "running")
	s.start("a", "ready")
	s.want(
		"start, service_start b, service_fail c nonesuch: command not found 1, service_exit a exit code 3 9 9, service_start a")
	s.exit("a", "exit code 137, SIGKILL")
	s.want(
		"start, service_start b, service_fail c nonesuch: command not found 1, service_exit a exit code 3 9 9, service_start a, service_exit a exit code 137, SIGKILL 10")
	s.base.Instance = "B"
	s.of = map[string]fleet.ServiceReport{}
	s.start("a", "ready")
	if got := s.story(); !strings.HasSuffix(got, "SIGKILL 10, service_start a") {
		t.Errorf("a new incarnation: %s", got)
	}
}

// TestServicesLeaveRoomInTheHistory: however many services end however often and in whatever ways,
// over however many moves, they take but a part of the history, and nothing is news twice.
func TestServicesLeaveRoomInTheHistory(t *testing.T) {
	s := newServices(t)
	s.ring = nil
	for i := range maxEvents - maxServiceLines {
		s.ring = append(s.ring, fleet.MachineEvent{Time: s.now, Event: fmt.Sprint("own ", i)})
	}
	for _, instance := range []string{"A", "B", "C"} {
		s.base.Instance, s.of = fleet.InstanceID(instance), map[string]fleet.ServiceReport{}
		for i := range 300 {
			name := fmt.Sprint("s", i%40)
			s.start(name, "ready")
			s.exit(name, fmt.Sprint("exit code ", i%7))
		}
		for i := range 200 { // one that flaps
			s.exit("flaps", "exit code 1")
			s.start("flaps", []string{"running", "ready"}[i%2])
		}
	}
	own, lines := 0, 0
	for _, e := range s.ring {
		if isService(e) {
			lines++
		} else {
			own++
		}
	}
	if own != maxEvents-maxServiceLines || lines > maxServiceLines {
		t.Errorf("%d of the machine's own lines and %d of services: %s", own, lines, s.story())
	}
	// What a full history has come past isn't told as if it were new.
	for range maxEvents {
		s.now = s.now.Add(time.Second)
		s.ring = append(s.ring[1:], fleet.MachineEvent{Time: s.now, Event: "later"})
	}
	s.report()
	if got := s.story(); strings.Contains(got, "service") {
		t.Error(got)
	}
}
