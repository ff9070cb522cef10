package control_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// TestAServerThatWasHeldUpHoldsItAgainstNobody: a silence in which the server itself got no time is
// none. One in which it looked counts as it always did.
func TestAServerThatWasHeldUpHoldsItAgainstNobody(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool"}, control.Deps{
		Store: memstate.New(memstate.Config{}),
		Now:   func() time.Time { return now },
		Disks: &memDisks{docs: map[string][]byte{}}, Images: memImages{},
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	join := fleet.JoinRequest{Worker: "w1", Address: netip.MustParseAddr("fd00::1"),
		APIURL:   "https://[fd00::1]:7600",
		Capacity: fleet.Resources{CPUMillis: 4000, MemoryMiB: 1024}, Runtime: "sandbox"}
	if _, err := c.Join(t.Context(), join); err != nil {
		t.Fatal(err)
	}
	// pass lets time go by, with looks that far apart, and says whether the worker is down then.
	pass := func(d, every time.Duration) bool {
		t.Helper()
		for end := now.Add(d); now.Before(end); {
			now = now.Add(every)
			c.Tick()
		}
		w, err := c.Worker(t.Context(), "w1")
		if err != nil {
			t.Fatal(err)
		}
		return w.State == fleet.WorkerDown
	}
	const tick = 100 * time.Millisecond
	// after which a server looks that has nothing else to do, and a little late
	const rest = 1050 * time.Millisecond
	if !pass(12*time.Second, rest) {
		t.Error("not down after 12 s in which the server rested on purpose")
	}
	if _, err := c.Join(t.Context(), join); err != nil { // it is back
		t.Fatal(err)
	}
	if pass(9*time.Second, tick) {
		t.Error("down after 9 s")
	}
	if pass(time.Minute, time.Minute) {
		t.Error("down after a minute in which the server did not look")
	}
	if pass(900*time.Millisecond, tick) {
		t.Error("down after 9.9 s in which it looked")
	}
	if !pass(200*time.Millisecond, tick) {
		t.Error("not down after 10.1 s in which it looked")
	}
}
