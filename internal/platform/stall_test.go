package platform_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// recorderService appends a numbered line, fsyncs it, and then prints its number: what it prints
// was acknowledged. It ends at the first error. ticker prints and never touches the disk.
func recorderService() fleet.Service {
	return fleet.Service{Name: "recorder", Cmd: []string{"sh", "-c",
		"i=1; while echo $i | dd of=/data/records oflag=append conv=notrunc,fsync 2>/dev/null; do echo ack $i; i=$((i+1)); done; echo broken at $i; exec sleep 9999"}}
}

func tickerService() fleet.Service {
	return fleet.Service{Name: "ticker",
		Cmd: []string{"sh", "-c", "while :; do echo tick; sleep 0.1; done"}}
}

func (v *testVM) lines(service, text string) int {
	v.t.Helper()
	log, err := v.get("logs?service=" + service)
	if err != nil {
		v.t.Fatal(err)
	}
	return strings.Count(log, text)
}

// goesOn waits until the recorder has got some records further.
func (v *testVM) goesOn() {
	v.t.Helper()
	from := v.lines("recorder", "ack")
	v.await("the recorder goes on", func(guestapi.Health) bool {
		time.Sleep(50 * time.Millisecond)
		return v.lines("recorder", "ack") >= from+5
	})
}

// TestStoreStalls: a machine whose store stops is paused, all of it but the platform, and goes on
// where it was when the store is back, without an error that anybody sees; over a restart of
// platformd in the middle, too. Meanwhile it says so, and refuses what can't be done. Released
// while it is paused, it stops in order.
func TestStoreStalls(t *testing.T) {
	t.Parallel()
	id := newDisk(t)
	b := bindOf(id, 1, recorderService(), tickerService())
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	v.goesOn()
	services := v.health().Services

	v.cut.Store(true)
	h := v.await("stalled", func(h guestapi.Health) bool { return h.Stall != nil })
	if s := h.Stall; s.Paused || s.Operation == "" || s.Reason == "" || s.Remedy == "" ||
		time.Since(s.Since) > 5*time.Second {
		t.Errorf("stalled: %+v", s)
	}
	v.await("paused", func(h guestapi.Health) bool { return h.Stall != nil && h.Stall.Paused })
	ticks := v.lines("ticker", "tick")
	if err := v.call(t.Context(), "GET", guestapi.PathMachine+"exec?cmd=true", nil,
		nil); !errs.Is(err, errs.Unavailable) ||
		!strings.Contains(err.Error(), "paused") ||
		!strings.Contains(errs.RemedyOf(err), "goes on by itself") {
		t.Errorf("exec: %v; %s", err, errs.RemedyOf(err))
	}
	var d struct {
		Stall *fleet.DiskStall `json:"stall"`
	}
	if err := v.call(t.Context(), "GET", guestapi.PathMachine+"disk", nil, &d); err != nil ||
		d.Stall == nil || !d.Stall.Paused {
		t.Errorf("disk: %+v, %v", d.Stall, err)
	}
	v.kill("platformd")
	v.await("paused again", func(h guestapi.Health) bool {
		return h.Stall != nil &&
			h.Stall.Paused
	})
	time.Sleep(time.Second) // for the new one to freeze it
	later := v.lines("ticker", "tick")
	time.Sleep(time.Second)
	if now := v.lines("ticker", "tick"); now != later {
		t.Errorf("a paused machine ticks: %d, %d and then %d", ticks, later, now)
	}

	v.cut.Store(false)
	v.await("not stalled", func(h guestapi.Health) bool { return h.Stall == nil })
	v.goesOn()
	if n := v.lines("ticker", "tick"); n <= later {
		t.Errorf("%d ticks, as before", n)
	}
	for i, s := range v.health().Services {
		if s.PID != services[i].PID || s.Restarts != 0 {
			t.Errorf("service %s was %+v, is %+v", s.Name, services[i], s)
		}
	}
	acked := v.lines("recorder", "ack")
	if n := v.lines("recorder", "broken"); n != 0 {
		t.Error("the recorder saw an error")
	}

	v.cut.Store(true)
	v.await("paused", func(h guestapi.Health) bool { return h.Stall != nil && h.Stall.Paused })
	released := make(chan error, 1)
	go func() {
		released <- v.call(t.Context(), "POST", guestapi.PathReleaseMachine,
			guestapi.ReleaseMachine{Machine: id, Generation: 1}, nil)
	}()
	h = v.await("waiting to be released",
		func(h guestapi.Health) bool { return h.State == guestapi.StateStopping && h.Error != "" })
	if !strings.Contains(h.Error, "object store") || h.ErrorKind != string(errs.Unavailable) ||
		h.Remedy == "" {
		t.Errorf("waits for: %q %q %q", h.ErrorKind, h.Error, h.Remedy)
	}
	v.cut.Store(false)
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	fsck(t, id)

	w := startVM(t)
	c := bindOf(id, 2)
	w.bind(c)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh(
		"seq $(wc -l < /data/records) | cmp - /data/records && echo whole"); got != "whole\n" {
		t.Errorf("records: %s", got)
	}
	if got := w.sh("test $(wc -l < /data/records) -ge " + strconv.Itoa(acked) +
		" && echo all"); got != "all\n" {
		t.Errorf("%d records were acknowledged", acked)
	}
	w.release(c)
}
