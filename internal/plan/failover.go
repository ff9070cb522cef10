package plan

import (
	"cmp"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

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
	for _, m := range v.lost() {
		if m.Owner != "" || m.Desired != fleet.DesiredStarted || t.isMoving(m.ID) {
			continue
		}
		if p.Brake != "" {
			p.Waiting[m.ID] = fleet.Blocker{Code: fleet.CodeBrake, Object: "fleet", Detail: p.Brake,
				Remedy: "sluice worker drain " + string(m.Placement.Worker)}
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

// lost returns the machines on workers that are down and that no drain has, ordered by id.
func (v View) lost() []*fleet.Machine {
	var all []*fleet.Machine
	for _, e := range v.order {
		if e.placed > 0 && e.rec.Drain == "" && v.Look.Health(e.id) == Down {
			all = append(all, v.Placed(e.id)...)
		}
	}
	slices.SortFunc(all, func(a, b *fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
