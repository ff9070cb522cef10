package records

import (
	"cmp"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Around is what concerns one worker, as of one moment.
type Around struct {
	Worker     fleet.Worker
	Machines   map[fleet.MachineID]fleet.Machine // placed on it, moving from or to it, or asked for
	Moves      []fleet.Move                      // not final, from or to it
	Tombstones map[fleet.MachineID]Tombstone     // of those asked for
	// Strangers are those of the machines asked for that are neither placed on it nor moving from
	// or to it.
	Strangers []fleet.MachineID
	Stamp     Stamp
}

// Stamp tells whether what is around a worker is what it was, without looking at it: every change
// makes another.
type Stamp struct {
	own       int64  // its record, machines placed on it, moves from or to it
	peers     int64  // other workers, as peers
	sealed    int64  // what workers are told in private
	strangers uint64 // machines that it reports only
}

// SamePeers reports whether the peers are the same.
func (s Stamp) SamePeers(o Stamp) bool { return s.peers == o.peers }

// stamps count changes by the workers that they concern.
type stamps struct {
	of     map[fleet.WorkerID]int64
	sealed int64
	peers  []fleet.Peer // of all workers that are not revoked, ordered by id
	round  int64        // how often peers have changed
	stale  bool         // they are not what they should be
}

func (s *stamps) machine(old, now *fleet.Machine) {
	for _, m := range []*fleet.Machine{old, now} {
		if m != nil && m.Placement != nil {
			s.of[m.Placement.Worker]++
		}
	}
}

func (s *stamps) move(mv *fleet.Move) {
	if mv != nil {
		s.of[mv.From]++
		s.of[mv.To]++
	}
}

func (s *stamps) moves(all map[fleet.MoveID]*fleet.Move) {
	for _, mv := range all {
		s.move(mv)
	}
}

func (s *stamps) worker(id fleet.WorkerID, old, now *fleet.Worker) {
	s.of[id]++
	if old == nil || now == nil || peerOf(*old) != peerOf(*now) {
		s.stale = true
	}
}

func peerOf(w fleet.Worker) fleet.Peer {
	return fleet.Peer{Worker: w.ID, Number: w.Number, Address: w.Address, Tunnel: w.Tunnel}
}

// settleLocked makes what depends on several records what it should be, after they have changed.
func (r *Records) settleLocked() {
	r.indices.plan.Settle()
	s := &r.indices.stamps
	if !s.stale {
		return
	}
	s.stale = false
	s.round++
	s.peers = make([]fleet.Peer, 0, len(r.Workers.rows)) // anew: the old ones may be in use
	for id, w := range r.Workers.rows {
		if who, _ := r.Identities.getLocked(id); !who.Val.IsRevoked() {
			s.peers = append(s.peers, peerOf(w.Val))
		}
	}
	slices.SortFunc(s.peers, func(a, b fleet.Peer) int { return cmp.Compare(a.Worker, b.Worker) })
}

// Peers returns all workers but one and those that are revoked, ordered by id.
func (r *Records) Peers(but fleet.WorkerID) []fleet.Peer {
	r.mu.RLock()
	all := r.indices.stamps.peers
	r.mu.RUnlock()
	var others []fleet.Peer
	for _, p := range all {
		if p.Worker != but {
			others = append(others, p)
		}
	}
	return others
}

// Stamp returns the stamp of what is around a worker. strangers are those that Around gave.
func (r *Records) Stamp(id fleet.WorkerID, strangers []fleet.MachineID) Stamp {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.stampLocked(id, strangers)
}

func (r *Records) stampLocked(id fleet.WorkerID, strangers []fleet.MachineID) Stamp {
	s := Stamp{own: r.indices.stamps.of[id], peers: r.indices.stamps.round,
		sealed: r.indices.stamps.sealed}
	for _, m := range strangers {
		for _, rev := range []int64{
			r.Machines.revLocked(string(m)), r.Tombstones.revLocked(string(m))} {
			s.strangers = (s.strangers ^ uint64(rev)) * 1099511628211 // FNV's prime
		}
	}
	return s
}

// Around returns what concerns a worker, and these machines; false if there is no such worker.
func (r *Records) Around(id fleet.WorkerID, reported []fleet.MachineID) (Around, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	w, ok := r.Workers.rows[id]
	if !ok {
		return Around{}, false
	}
	a := Around{Worker: w.Val, Machines: map[fleet.MachineID]fleet.Machine{},
		Tombstones: map[fleet.MachineID]Tombstone{}}
	take := func(m fleet.MachineID) {
		if row, ok := r.Machines.rows[m]; ok {
			a.Machines[m] = row.Val
		}
	}
	for _, m := range r.indices.plan.Placed(id) {
		a.Machines[m.ID] = *m
	}
	for m, moves := range r.indices.active {
		for _, mv := range moves {
			if mv.From == id || mv.To == id {
				a.Moves = append(a.Moves, *mv)
				take(m)
			}
		}
	}
	for _, m := range reported {
		if _, ours := a.Machines[m]; !ours {
			a.Strangers = append(a.Strangers, m)
			take(m)
		}
		if tomb, ok := r.Tombstones.rows[m]; ok {
			a.Tombstones[m] = tomb.Val
		}
	}
	a.Stamp = r.stampLocked(id, a.Strangers)
	return a, true
}
