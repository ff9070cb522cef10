package plan

import "github.com/sluice-platform/sluice/internal/fleet"

// FailoverPlan is what to do about machines on workers that are down.
type FailoverPlan struct {
	Start []MoveStart
	// Waiting says of each machine that should run but isn't started now, why.
	Waiting map[fleet.MachineID]fleet.Blocker
	// Brake is why nothing is started; "" if nothing stands in the way.
	Brake string
}

// Failover plans the moves of machines that should run and whose worker is down. Workers that are
// being drained are left to their drain, and machines that an operation owns to that operation.
func Failover(v View, policy fleet.Policy) FailoverPlan {
	p := FailoverPlan{Waiting: map[fleet.MachineID]fleet.Blocker{}, Brake: Brake(v, policy)}
	t := newTally(v, policy)
	for _, m := range byID(v.Machines) {
		if m.Placement == nil || m.Owner != "" || m.Desired != fleet.DesiredStarted ||
			t.moving[m.ID] {
			continue
		}
		w, ok := t.worker(m.Placement.Worker)
		if !ok || w.Health != Down || w.Drain != "" {
			continue
		}
		if p.Brake != "" {
			p.Waiting[m.ID] = fleet.Blocker{Code: fleet.CodeBrake, Object: "fleet", Detail: p.Brake,
				Remedy: "sluice worker drain " + string(w.ID)}
			continue
		}
		to, blocker := t.next(m, nil)
		if blocker != nil {
			p.Waiting[m.ID] = *blocker
			continue
		}
		p.Start = append(p.Start, t.book(m, to))
	}
	return p
}

// next returns the target of a machine's move if it may start now. Otherwise it returns why not:
// there is no target, or it is merely not its turn (fleet.CodeNetworkLocked,
// fleet.CodeTooManyMoves).
func (t *tally) next(m fleet.Machine,
	exclude map[fleet.WorkerID]string) (fleet.WorkerID, *fleet.Blocker) {
	ex := map[fleet.WorkerID]string{m.Placement.Worker: "the machine is on it"}
	for w, why := range exclude {
		ex[w] = why
	}
	need := NeedOf(m, ex)
	if _, blocker := t.place(need, nil); blocker != nil {
		return "", blocker
	}
	if t.locks[m.Network] >= max(t.policy.MovesPerNetwork, 1) {
		return "", &fleet.Blocker{Code: fleet.CodeNetworkLocked,
			Object: "network/" + string(m.Network),
			Detail: "another machine of the network is moving", Remedy: "wait for it"}
	}
	busy := func(w Worker) bool { return t.in[w.ID] >= t.policy.MovesIn }
	to, _ := t.place(need, busy)
	if to == "" || t.moves >= t.policy.MovesFleet ||
		t.out[m.Placement.Worker] >= t.policy.MovesOut {
		return "", &fleet.Blocker{Code: fleet.CodeTooManyMoves, Object: "fleet",
			Detail: "as many moves are under way as the policy allows", Remedy: "wait for them"}
	}
	return to, nil
}
