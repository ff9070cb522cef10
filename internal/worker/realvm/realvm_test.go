package realvm_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
)

func head(t *testing.T, id fleet.MachineID) *format.Head {
	t.Helper()
	o, err := shared.store.Get(t.Context(), "disks/"+string(id)+"/head", blob.All())
	if err != nil {
		t.Fatal(err)
	}
	h, err := format.DecodeHead(o.Data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A machine runs, outlives its worker, and is given back with its disk closed; after a crash of its
// VM it is reported failed, and runs again as a new generation.
func TestLifeOfAMachine(t *testing.T) {
	const id = fleet.MachineID("01000000000001")
	newDisk(t, id)
	h := newHost(t, "w1", true)
	h.start()
	h.feed.awaitPool(t, 1)
	h.feed.assign(assignment(id, 1, fleet.WantRunning))
	before := h.feed.awaitPhase(t, id, 1, fleet.PhaseHealthy)
	if got := h.fetch(id, "/ports/8080/log"); got != "started\n" {
		t.Fatalf("the service says %q", got)
	}

	h.restart()
	after := h.feed.awaitPhase(t, id, 1, fleet.PhaseHealthy)
	if after.VM != before.VM {
		t.Fatalf("was in VM %s, is in %s", before.VM, after.VM)
	}
	if got := h.fetch(id, "/ports/8080/log"); got != "started\n" {
		t.Fatalf("after a restart of the worker the service says %q", got)
	}

	h.killVM(after.VM)
	h.feed.await(t, "failed and removed", func(r fleet.WorkerReport) bool {
		return len(r.VMs) == 1 && r.VMs[0].Phase == fleet.PhaseFailed && !r.VMs[0].HasVM &&
			r.VMs[0].Error != ""
	})
	h.feed.assign(assignment(id, 2, fleet.WantRunning))
	h.feed.awaitPhase(t, id, 2, fleet.PhaseHealthy)
	if got := h.fetch(id, "/ports/8080/log"); got != "started\nstarted\n" {
		t.Fatalf("after a crash the disk has %q", got)
	}

	h.feed.assign(assignment(id, 2, fleet.WantReleased))
	released := h.feed.awaitPhase(t, id, 2, fleet.PhaseReleased)
	if hd := head(t, id); released.Error != "" || hd.State != format.StateClosed ||
		hd.Generation != 2 {
		t.Fatalf("released with %q, head %+v", released.Error, hd)
	}
	if released.Disk.BytesWritten == 0 || released.Disk.BytesRead == 0 {
		t.Fatalf("counts are %+v", released.Disk)
	}
	h.feed.assign()
	h.feed.await(t, "forgotten", func(r fleet.WorkerReport) bool { return len(r.VMs) == 0 })
}

// killVM ends a VM as a power cut would.
func (h *host) killVM(id fleet.VMID) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	vms, err := h.driver.Adopt(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.ID() == id {
			if err := vm.Kill(ctx); err != nil {
				h.t.Fatal(err)
			}
			return
		}
	}
	h.t.Fatalf("no VM %s", id)
}

// A machine moves back and forth between two workers: what it wrote is there, and the pause is
// printed.
func TestMoveBetweenWorkers(t *testing.T) {
	const id = fleet.MachineID("01000000000002")
	newDisk(t, id)
	hosts := []*host{newHost(t, "w1", false), newHost(t, "w2", false)}
	for _, h := range hosts {
		h.start()
		h.feed.awaitPool(t, 1)
	}
	from := hosts[0]
	from.feed.assign(assignment(id, 1, fleet.WantRunning))
	from.feed.awaitPhase(t, id, 1, fleet.PhaseHealthy)
	want := "started\n"
	for g := fleet.Generation(2); g <= 6; g++ {
		to := hosts[(g+1)%2]
		to.feed.awaitPool(t, 1)
		to.feed.assign(assignment(id, g, fleet.WantPrepared))
		to.feed.awaitPhase(t, id, g, fleet.PhasePrepared)
		began := time.Now()
		from.feed.assign(assignment(id, g-1, fleet.WantReleased))
		released := from.feed.awaitPhase(t, id, g-1, fleet.PhaseReleased)
		out := time.Since(began)
		if released.Error != "" {
			t.Fatalf("released with %q", released.Error)
		}
		to.feed.assign(assignment(id, g, fleet.WantRunning))
		healthy := to.feed.awaitPhase(t, id, g, fleet.PhaseHealthy)
		t.Logf("move %d: pause %s, of which release %s; attached with %d replayed", g-1,
			time.Since(began), out, healthy.Disk.Replayed)
		want += "started\n"
		if got := to.fetch(id, "/ports/8080/log"); got != want {
			t.Fatalf("after the move the disk has %q, want %q", got, want)
		}
		from.feed.assign()
		from.feed.await(t, "gone from the source",
			func(r fleet.WorkerReport) bool { return len(r.VMs) == 0 })
		from = to
	}
	if hd := head(t, id); hd.Epoch != 6 {
		t.Fatalf("head is %+v", hd)
	}
}
