package worker_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestAccelerationIsReportedBeforeAnyMachine(t *testing.T) {
	r := newRig(t, 0)
	r.start()
	r.eventually("it is reported", func() bool {
		a := r.feed.last().Acceleration
		return a != nil && *a == fleet.Acceleration{Kind: "tcg", Reason: "of /release"}
	})
	if n := r.host.boots(); n != 0 {
		t.Errorf("%d VMs were started for it", n)
	}
}

func TestMachineIsPreparedRunAndReleased(t *testing.T) {
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	r.eventually("a VM is ready", func() bool { return r.feed.last().PoolReady == 1 })

	r.feed.assign(assignment(m1, 1, fleet.WantPrepared))
	prepared := r.awaitPhase(m1, 1, fleet.PhasePrepared)
	if h := r.head(m1); h.Epoch != 0 {
		t.Fatalf("preparing has attached the disk: %+v", h)
	}
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	healthy := r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	if healthy.VM != prepared.VM || !healthy.HasVM {
		t.Fatalf("runs in VM %s, prepared was %s", healthy.VM, prepared.VM)
	}
	if h := r.head(m1); h.Generation != 1 || h.Holder != string(healthy.VM) ||
		h.State != format.StateOpen {
		t.Fatalf("head is %+v", h)
	}
	if l, ok := r.host.linkOf(m1); !ok || l.Interface != "vm"+string(healthy.VM) {
		t.Fatalf("network has %+v", l)
	}
	r.write(1)

	revision := r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	released := r.awaitPhase(m1, 1, fleet.PhaseReleased)
	if released.Error != "" {
		t.Fatalf("released with %q", released.Error)
	}
	if h := r.head(m1); h.State != format.StateClosed {
		t.Fatalf("released, but the head is %+v", h)
	}
	if released.Disk.BytesWritten < 4096 || released.Disk.Requests == 0 {
		t.Fatalf("counts are %+v", released.Disk)
	}
	r.awaitGone(m1)
	if _, ok := r.host.linkOf(m1); ok {
		t.Fatal("network still has the machine")
	}
	r.eventually("the set was acted on", func() bool { return r.feed.last().Seen == revision })
	r.feed.assign()
	r.eventually("forgotten", func() bool { return r.feed.vm(m1) == nil })
	if r.feed.overlap {
		t.Fatal("two reports were in flight at once")
	}
}

// write puts a block on the one bound VM's disk and flushes it.
func (r *rig) write(n byte) {
	r.t.Helper()
	vms := r.host.bound()
	if len(vms) != 1 {
		r.t.Fatalf("%d bound VMs", len(vms))
	}
	d := vms[0].theDisk()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	block := make([]byte, 4096)
	rand.Read(block) // doesn't compress
	if err := d.WriteAt(ctx, block, int64(n)*4096); err != nil {
		r.t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func TestRunsWithoutPoolAndWithoutPreparation(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 4, fleet.WantRunning))
	v := r.awaitPhase(m1, 4, fleet.PhaseHealthy)
	for _, p := range []fleet.Phase{fleet.PhaseAttaching, fleet.PhaseStarting, fleet.PhaseRunning} {
		if v.Timeline[p].IsZero() {
			t.Errorf("timeline lacks %s: %v", p, v.Timeline)
		}
	}
}

func TestOlderAssignmentsAreRefusedInAnyOrder(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 5, fleet.WantRunning))
	vm := r.awaitPhase(m1, 5, fleet.PhaseHealthy).VM
	check := func(when string) {
		t.Helper()
		for _, a := range []fleet.Assignment{
			assignment(m1, 3, fleet.WantDiscarded), assignment(m1, 4, fleet.WantReleased),
			assignment(m1, 1, fleet.WantRunning),
		} {
			revision := r.feed.assign(a)
			r.eventually("set seen", func() bool { return r.feed.last().Seen == revision })
			if v := r.feed.vm(m1); v == nil || v.Phase != fleet.PhaseHealthy ||
				v.Generation != 5 || v.VM != vm {
				t.Fatalf("%s: after %s at generation %d: %+v", when, a.Want, a.Generation, v)
			}
		}
	}
	check("before a restart")
	r.restart()
	r.awaitPhase(m1, 5, fleet.PhaseHealthy)
	check("after a restart")

	r.feed.assign(assignment(m1, 5, fleet.WantReleased))
	r.awaitPhase(m1, 5, fleet.PhaseReleased)
	r.feed.assign()
	r.eventually("forgotten", func() bool { return r.feed.vm(m1) == nil })
	boots := r.host.boots()
	for range 2 {
		revision := r.feed.assign(assignment(m1, 4, fleet.WantRunning))
		r.eventually("set seen", func() bool { return r.feed.last().Seen == revision })
		if v := r.feed.vm(m1); v != nil || r.host.boots() != boots {
			t.Fatalf("an assignment older than one forgotten was acted on: %+v", v)
		}
		r.restart()
	}
}

func TestNewerGenerationSupersedesWhatRunsHere(t *testing.T) {
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	first := r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.feed.assign(assignment(m1, 2, fleet.WantRunning))
	second := r.awaitPhase(m1, 2, fleet.PhaseHealthy)
	if first.VM == second.VM || len(r.host.bound()) != 1 {
		t.Fatalf("first in %s, second in %s, %d bound", first.VM, second.VM, len(r.host.bound()))
	}
	if h := r.head(m1); h.Generation != 2 || h.Epoch != 2 {
		t.Fatalf("head is %+v", h)
	}
}

func TestVMThatEndsByItselfFailsAndIsNotRestarted(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.host.bound()[0].kill("out of luck")
	v := r.awaitPhase(m1, 1, fleet.PhaseFailed)
	if !strings.Contains(v.Error, "out of luck") || v.Remedy == "" {
		t.Fatalf("reported %+v", v)
	}
	r.awaitGone(m1)
	r.restart()
	r.awaitPhase(m1, 1, fleet.PhaseFailed)
	if r.host.boots() != 1 {
		t.Fatal("the worker started it again by itself")
	}
	r.feed.assign(assignment(m1, 2, fleet.WantRunning))
	r.awaitPhase(m1, 2, fleet.PhaseHealthy)
}

func TestFailedAttachIsReportedWithItsKind(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	d, err := disk.Attach(t.Context(), r.store, "disks/"+string(m1),
		disk.AttachOptions{Generation: 9, Holder: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abandon()
	r.start()
	r.feed.assign(assignment(m1, 8, fleet.WantRunning))
	r.awaitPhase(m1, 8, fleet.PhaseFenced)
	r.awaitGone(m1)
	r.feed.assign(assignment(m1, 9, fleet.WantRunning))
	if v := r.awaitPhase(m1, 9, fleet.PhaseFailed); v.ErrorKind != string(errs.Conflict) {
		t.Fatalf("reported %+v", v)
	}
	missing := assignment("010000000000ff", 1, fleet.WantRunning)
	r.feed.assign(missing)
	if v := r.awaitPhase(missing.Machine, 1,
		fleet.PhaseFailed); v.ErrorKind != string(errs.NotFound) {
		t.Fatalf("reported %+v", v)
	}
}

func TestFencedMachineIsKilled(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.write(1)
	d, err := disk.Attach(t.Context(), r.store, "disks/"+string(m1),
		disk.AttachOptions{Generation: 2, Holder: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abandon()
	zombie := r.host.bound()[0]
	_ = zombie.theDisk().WriteAt(t.Context(), []byte("too late"), 0)
	if err := zombie.theDisk().Flush(t.Context()); err == nil {
		t.Fatal("a fenced disk acknowledged a flush")
	}
	v := r.awaitPhase(m1, 1, fleet.PhaseFenced)
	if v.ErrorKind != string(errs.Fenced) {
		t.Fatalf("reported %+v", v)
	}
	r.awaitGone(m1)
	r.feed.assign(assignment(m1, 2, fleet.WantDiscarded))
	r.awaitPhase(m1, 2, fleet.PhaseReleased)
}

func TestReleaseOfAHangingPlatformIsUnclean(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.CloseGrace = 100 * time.Millisecond })
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.host.setFault(func(vm *fakeVM, req *http.Request) { // answers nothing any more
		select {
		case <-req.Context().Done():
		case <-vm.ctx.Done():
		}
	})
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	r.awaitPhase(m1, 1, fleet.PhaseStopping)
	v := r.awaitPhase(m1, 1, fleet.PhaseReleased)
	if !strings.Contains(v.Error, "unclean") {
		t.Fatalf("reported %+v", v)
	}
	r.awaitGone(m1)
	if h := r.head(m1); h.State != format.StateOpen {
		t.Fatal("the head says closed, and nobody has closed it")
	}
}

func TestReleaseGoesOnWhileThePlatformIsStillAtIt(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.CloseGrace = 50 * time.Millisecond })
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	late := time.Now().Add(600 * time.Millisecond)
	r.host.setFault(func(vm *fakeVM, req *http.Request) {
		if is(req, guestapi.PathReleaseMachine) && time.Now().Before(late) {
			vm.set(guestapi.StateStopping, nil)
			select { // slower than the grace, but it answers other calls
			case <-time.After(time.Until(late)):
			case <-vm.ctx.Done():
			}
		}
	})
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	if v := r.awaitPhase(m1, 1, fleet.PhaseReleased); v.Error != "" {
		t.Fatalf("reported %+v", v)
	}
	if h := r.head(m1); h.State != format.StateClosed {
		t.Fatalf("head is %+v", h)
	}
}

func TestVMThatDiesWhileItIsReleasedIsReleasedUnclean(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.host.setFault(func(vm *fakeVM, req *http.Request) {
		if is(req, guestapi.PathReleaseMachine) {
			go vm.kill("power cut")
			<-vm.done
		}
	})
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	if v := r.awaitPhase(m1, 1, fleet.PhaseReleased); !strings.Contains(v.Error, "unclean") {
		t.Fatalf("reported %+v", v)
	}
	r.awaitGone(m1)
}

func TestDiscardDoesNotAskAndDoesNotWait(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.host.setFault(func(vm *fakeVM, req *http.Request) {
		if is(req, guestapi.PathBind) { // the worker waits for an answer to its bind
			select {
			case <-req.Context().Done():
			case <-vm.ctx.Done():
			}
		}
	})
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseAttaching)
	began := time.Now()
	r.feed.assign(assignment(m1, 2, fleet.WantDiscarded))
	r.awaitPhase(m1, 2, fleet.PhaseReleased)
	r.awaitGone(m1)
	if d := time.Since(began); d > time.Second {
		t.Fatalf("discarding took %s", d)
	}
}

func TestReleaseOfTheUnknownSaysSo(t *testing.T) {
	r := newRig(t, 0)
	r.start()
	r.feed.assign(assignment(m1, 3, fleet.WantReleased))
	if v := r.awaitPhase(m1, 3, fleet.PhaseReleased); !strings.Contains(v.Error, "unclean") ||
		v.HasVM {
		t.Fatalf("reported %+v", v)
	}
}

func TestCancelledPreparationLeavesNothing(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 2, fleet.WantPrepared))
	r.awaitPhase(m1, 2, fleet.PhasePrepared)
	r.feed.assign(assignment(m1, 2, fleet.WantDiscarded))
	if v := r.awaitPhase(m1, 2, fleet.PhaseReleased); strings.Contains(v.Error, "unclean") {
		t.Fatalf("reported %+v", v)
	}
	r.eventually("no VM", func() bool { return len(r.host.all()) == 0 })

	r.feed.assign(assignment(m1, 4, fleet.WantPrepared))
	r.awaitPhase(m1, 4, fleet.PhasePrepared)
	r.feed.assign() // not even discarded: simply not named any more
	r.eventually("no VM", func() bool { return len(r.host.all()) == 0 && r.feed.vm(m1) == nil })
}

func TestSilenceAndAbsenceEndNothing(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	vm := r.awaitPhase(m1, 1, fleet.PhaseHealthy).VM
	revision := r.feed.assign()
	r.eventually("set seen", func() bool { return r.feed.last().Seen == revision })
	r.write(1)
	r.feed.setDown(true)
	r.restart() // with nobody to ask where the store is
	r.write(2)  // by the old token, through the new gateway
	r.feed.setDown(false)
	if v := r.awaitPhase(m1, 1, fleet.PhaseHealthy); v.VM != vm {
		t.Fatalf("reported %+v", v)
	}
}

func TestForgottenWorkerJoinsAgainAndKeepsItsMachines(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	vm := r.awaitPhase(m1, 1, fleet.PhaseHealthy).VM
	r.feed.mu.Lock()
	r.feed.unknown, r.feed.reports = true, nil
	close(r.feed.changed)
	r.feed.changed = make(chan struct{})
	r.feed.mu.Unlock()
	if v := r.awaitPhase(m1, 1, fleet.PhaseHealthy); v.VM != vm || r.feed.joins != 2 {
		t.Fatalf("reported %+v after %d joins", v, r.feed.joins)
	}
	r.write(1)
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	if v := r.awaitPhase(m1, 1, fleet.PhaseReleased); v.Error != "" {
		t.Fatalf("released with %q", v.Error)
	}
}
