package platform_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

func logSteps(t *testing.T, what string, h guestapi.Health) {
	t.Helper()
	for _, s := range h.Steps {
		t.Logf("%s: %-28s %8.2f ms", what, s.Name, float64(s.Took.Microseconds())/1000)
	}
}

func webService() fleet.Service {
	return fleet.Service{Name: "web", Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/data"}, HTTPPort: 8080,
		Check: &fleet.Check{Kind: fleet.CheckTCP, Port: 8080}}
}

func TestBindAndRelease(t *testing.T) {
	id := newDisk(t)
	var bindTook, releaseTook time.Duration
	for gen := range fleet.Generation(3) {
		b := bindOf(id, gen+1, webService())
		v := startVM(t)
		v.await("empty", made)
		began := time.Now()
		v.bind(b)
		v.bind(b) // twice is once
		v.await("healthy", inState(guestapi.StateHealthy))
		bindTook = time.Since(began)
		began = time.Now()
		h := v.release(b)
		releaseTook = time.Since(began)
		logSteps(t, "steps", h)
		if h.State != guestapi.StateReleased {
			t.Fatalf("state %s", h.State)
		}
		fsck(t, id)
		v.release(b) // again
		t.Logf("bind until healthy %v, release %v", bindTook, releaseTook)
	}
}
