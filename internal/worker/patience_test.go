package worker_test

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker"
)

// TestReleaseOutlivesAPlatformThatIsStartedAgain: a platform that is gone for a moment is no dead
// VM, and its disk is closed by the next one.
func TestReleaseOutlivesAPlatformThatIsStartedAgain(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	var cut atomic.Int32
	r.host.setFault(func(_ *fakeVM, req *http.Request) {
		if (req.URL.Path == guestapi.PathReleaseMachine || req.URL.Path == guestapi.PathHealth) &&
			cut.Add(1) <= 4 {
			panic(http.ErrAbortHandler) // as when its process has ended
		}
	})
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	v := r.awaitPhase(m1, 1, fleet.PhaseReleased)
	if strings.Contains(v.Error, "unclean") || cut.Load() < 4 {
		t.Fatalf("after %d cut requests it reported %+v", cut.Load(), v)
	}
	if h := r.head(m1); h.State != format.StateClosed {
		t.Fatalf("the head says %s", h.State)
	}
}

// TestPressureAndProgressAreReported: what the host says of itself, and that a start has come
// further.
func TestPressureAndProgressAreReported(t *testing.T) {
	r := newRig(t, 0, func(*worker.Config) {})
	r.pressure.Store(&fleet.Pressure{CPU: 0.75, Load: 9, Cores: 2})
	r.newDisk(m1)
	r.start()
	r.eventually("its pressure is reported", func() bool {
		p := r.feed.last().Pressure
		return p != nil && p.CPU == 0.75 && p.Cores == 2
	})
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	first := r.feed.vm(m1).Progress
	if first == 0 {
		t.Error("a whole start was no progress")
	}
	n := len(r.feed.all())
	r.eventually("more reports", func() bool { return len(r.feed.all()) > n+3 })
	if last := r.feed.vm(m1).Progress; last != first {
		t.Errorf("progress went from %d to %d, and nothing happened", first, last)
	}
}

// TestTheGatewayOfAnEndedMachineIsClosed: what its VM asks for until it is removed reaches nobody.
// Removing it may take long on a busy host, and a VM that reads ahead asks for hundreds of objects
// meanwhile.
func TestTheGatewayOfAnEndedMachineIsClosed(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	vm := r.host.bound()[0]
	address := r.host.gatewayOf(vm)
	removing, removed := make(chan struct{}), make(chan struct{})
	r.host.setRemoval(func() { <-removing; close(removed) })
	r.feed.assign(assignment(m1, 2, fleet.WantDiscarded))
	r.awaitPhase(m1, 2, fleet.PhaseReleased)
	r.eventually("its gateway is closed", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if len(r.host.all()) != 1 {
		t.Error("the VM is gone already: this proves nothing")
	}
	close(removing)
	<-removed
	r.awaitGone(m1)
}

// TestWhatIsWrongWithADiskIsReported: the platform's word that a file system could not grow goes on
// to the fleet, beside what the worker counts itself.
func TestWhatIsWrongWithADiskIsReported(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	if v := r.awaitPhase(m1, 1, fleet.PhaseHealthy); v.Disk.Ungrown != "" {
		t.Errorf("nothing was said, and %q is reported", v.Disk.Ungrown)
	}
	vm := r.host.bound()[0]
	vm.mu.Lock()
	vm.health.Disk.Ungrown = "too small"
	close(vm.changed)
	vm.changed = make(chan struct{})
	vm.mu.Unlock()
	r.eventually("reported", func() bool {
		v := r.feed.vm(m1)
		return v.Disk.Ungrown == "too small" && v.Disk.Requests > 0
	})
}
