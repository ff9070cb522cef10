package control

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// TestFeedIsKeptAsLongAsItHolds changes records and reports at random. The assignments that are
// kept, because nothing around their worker has changed, are those that would be derived now, and
// have another revision whenever they or the peers are others.
func TestFeedIsKeptAsLongAsItHolds(t *testing.T) {
	rnd, now := rand.New(rand.NewPCG(1, 1)), time.Unix(1000, 0)
	c, err := New(Config{}, Deps{Store: memstate.New(memstate.Config{}),
		Log:   slog.New(slog.DiscardHandler),
		Disks: struct{ Disks }{}, Images: struct{ Images }{}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker := func() fleet.WorkerID { return fleet.WorkerID(fmt.Sprintf("w%d", rnd.IntN(4))) }
	last, kept := map[fleet.WorkerID]fleet.AssignmentSet{}, 0
	for step := range 4000 {
		now = now.Add(time.Millisecond)
		tx := c.records.Begin()
		switch machine := fleet.MachineID(fmt.Sprintf("m%d", rnd.IntN(8))); rnd.IntN(6) {
		case 0:
			changeWorker(c, tx, rnd, worker())
		case 1, 2:
			changePlaced(c, tx, rnd, machine, worker())
		case 3:
			changeMoving(c, tx, rnd, machine, worker(), worker())
		case 4:
			tomb, had := c.records.Tombstones.Get(machine)
			if had {
				records.Delete(tx, tomb)
			} else {
				records.Set(tx, tomb, records.Tombstone{Machine: machine, Worker: worker(),
					Generation: fleet.Generation(rnd.IntN(4))})
			}
		case 5:
			r := fleet.WorkerReport{Worker: worker(), Boot: "b", Sequence: int64(step + 1)}
			for i := range rnd.IntN(4) {
				id := fleet.MachineID(fmt.Sprintf("m%d", i*2))
				r.VMs = append(r.VMs, fleet.VMReport{Machine: id,
					Generation: fleet.Generation(rnd.IntN(4)), HasVM: rnd.IntN(2) == 0,
					Phase: fleet.PhaseHealthy})
			}
			c.obs.take(r, now)
		}
		if tx.Len() > 0 {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			id := fleet.WorkerID(fmt.Sprintf("w%d", i))
			before := c.obs.feedOf(id).from
			set := c.withPeers(c.refreshFeed(id))
			if c.obs.feedOf(id).from == before {
				kept++
			}
			var reported []fleet.VMReport
			var machines []fleet.MachineID
			if r, _, _ := c.obs.report(id); r != nil {
				reported = r.VMs
			}
			for _, v := range reported {
				machines = append(machines, v.Machine)
			}
			want := fleet.AssignmentSet{Worker: id}
			if around, ok := c.records.Around(id, machines); ok {
				want = deriveAssignments(around, reported)
				want.Revision = set.Revision
				want = c.withPeers(want)
				if !reflect.DeepEqual(set, want) {
					t.Fatalf("step %d: %s has %+v, want %+v", step, id, set, want)
				}
				if old := last[id]; (old.Revision == set.Revision) && !reflect.DeepEqual(old, set) {
					t.Fatalf("step %d: revision %d was %+v, and is %+v", step, set.Revision, old,
						set)
				}
				last[id] = set
			}
		}
	}
	if kept < 4000 {
		t.Errorf("only %d of 16000 times what is kept was used", kept)
	}
}

func changeWorker(c *Control, tx *records.Txn, rnd *rand.Rand, id fleet.WorkerID) {
	w, _ := c.records.Workers.Get(id)
	next := fleet.Worker{ID: id, Number: 1, Cordoned: rnd.IntN(2) == 0,
		Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(2))})}
	records.Set(tx, w, next)
	if rnd.IntN(3) == 0 {
		who, _ := c.records.Identities.Get(id)
		records.Set(tx, who, fleet.WorkerIdentity{Worker: id, Term: 1, Revoked: int64(rnd.IntN(2))})
	}
}

func changePlaced(c *Control, tx *records.Txn, rnd *rand.Rand, id fleet.MachineID,
	on fleet.WorkerID) {
	m, had := c.records.Machines.Get(id)
	if had && rnd.IntN(8) == 0 {
		records.Delete(tx, m)
		return
	}
	gen := fleet.Generation(1 + rnd.IntN(4))
	next := fleet.Machine{ID: id, Desired: fleet.DesiredStarted, State: fleet.MachineStarted,
		Generation: gen}
	if rnd.IntN(4) > 0 {
		next.Placement = &fleet.Placement{Worker: on, Generation: gen}
	}
	if rnd.IntN(2) == 0 {
		next.Owner = moveOwner("mv-" + fleet.MoveID(id))
	}
	tx.SetMachine(m, next)
}

func changeMoving(c *Control, tx *records.Txn, rnd *rand.Rand, id fleet.MachineID,
	from, to fleet.WorkerID) {
	mv, _ := c.records.Moves.Get("mv-" + fleet.MoveID(id))
	steps := []fleet.Step{fleet.StepReserved, fleet.StepLocked, fleet.StepStopping,
		fleet.StepCommitted, fleet.StepUnlocked, fleet.StepDone}
	tx.SetMove(mv, fleet.Move{ID: "mv-" + fleet.MoveID(id), Machine: id, From: from, To: to,
		FromGen: 1, ToGen: 2, Reason: fleet.ReasonDrain, Step: steps[rnd.IntN(len(steps))]})
}
