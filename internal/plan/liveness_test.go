package plan_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

func TestLiveness(t *testing.T) {
	policy := fleet.DefaultPolicy() // suspect 3 s, down 10 s
	t0 := time.Unix(1000, 0)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	for _, c := range []struct {
		name    string
		contact plan.Contact
		grace   time.Time
		now     time.Time
		want    plan.Health
	}{
		{"just heard", plan.Contact{Last: at(5), Since: at(0)}, t0, at(5), plan.Alive},
		{"a little silent", plan.Contact{Last: at(5), Since: at(0)}, t0, at(7.9), plan.Alive},
		{"suspect", plan.Contact{Last: at(5), Since: at(0)}, t0, at(8), plan.Suspect},
		{"still suspect", plan.Contact{Last: at(5), Since: at(0)}, t0, at(14.9), plan.Suspect},
		{"down", plan.Contact{Last: at(5), Since: at(0)}, t0, at(15), plan.Down},
		{"never heard, server just started", plan.Contact{}, t0, at(1), plan.Suspect},
		{"never heard, a whole period later", plan.Contact{}, t0, at(10), plan.Down},
		{"silent, but the server started since", plan.Contact{Last: at(5), Since: at(0)}, at(14),
			at(16), plan.Suspect},
		{"as silent, on a host that can't do half of what it should",
			plan.Contact{Last: at(5), Since: at(0), Share: 0.5}, t0, at(15), plan.Suspect},
		{"down there", plan.Contact{Last: at(5), Since: at(0), Share: 0.5}, t0, at(25), plan.Down},
		{"a little silent, on a saturated host", plan.Contact{Last: at(5), Since: at(0), Share: 1},
			t0, at(13.9), plan.Alive},
		{"down on a saturated host, which is bounded",
			plan.Contact{Last: at(5), Since: at(0), Share: 1}, t0, at(35), plan.Down},
		{"some pressure, as each host has", plan.Contact{Last: at(5), Since: at(0), Share: 0.2}, t0,
			at(15), plan.Down},
		{"back from the dead, too short", plan.Contact{Last: at(21), Since: at(20), Lost: true}, t0,
			at(21), plan.Suspect},
		{"back from the dead, long enough", plan.Contact{Last: at(23), Since: at(20), Lost: true},
			t0, at(23), plan.Alive},
	} {
		if got := plan.Liveness(c.contact, c.grace, c.now, policy); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAGapBeginsANewStreak(t *testing.T) {
	policy := fleet.DefaultPolicy()
	t0 := time.Unix(1000, 0)
	c := plan.Contact{}.Heard(t0, policy).Heard(t0.Add(2*time.Second), policy)
	if !c.Since.Equal(t0) || !c.Last.Equal(t0.Add(2*time.Second)) {
		t.Fatalf("streak broken without a gap: %+v", c)
	}
	c = c.Heard(t0.Add(5*time.Second), policy)
	if !c.Since.Equal(t0.Add(5 * time.Second)) {
		t.Fatalf("a silence of WorkerSuspect doesn't begin a new streak: %+v", c)
	}
	if again := c.Heard(t0, policy); !again.Last.Equal(c.Last) {
		t.Fatal("an older time set the contact back")
	}
}

func TestBrake(t *testing.T) {
	policy := fleet.DefaultPolicy()
	for _, c := range []struct {
		name           string
		alive, down    int
		downAndDrained int
		shutOut        int
		braked         bool
	}{
		{"one of three", 2, 1, 0, 0, false},
		{"two of three", 1, 2, 0, 0, true},
		{"two of ten is not more than a fifth", 8, 2, 0, 0, false},
		{"two of nine", 7, 2, 0, 0, true},
		{"drained workers may be off", 2, 1, 3, 0, false},
		{"shut out workers are silent on purpose", 2, 1, 0, 3, false},
	} {
		var v plan.Snapshot
		add := func(n int, h plan.Health, drained bool) {
			for range n {
				w := plan.Worker{Health: h}
				w.ID, w.Drained = fleet.WorkerID(rune('a'+len(v.Workers))), drained
				v.Workers = append(v.Workers, w)
			}
		}
		add(c.alive, plan.Alive, false)
		add(c.down, plan.Down, false)
		add(c.downAndDrained, plan.Down, true)
		add(c.shutOut, plan.Down, false)
		for i := range c.shutOut {
			v.Workers[len(v.Workers)-1-i].ShutOut = true
		}
		if got := plan.Brake(v.View(), policy); (got != "") != c.braked {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
