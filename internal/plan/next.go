package plan

import "github.com/sluice-platform/sluice/internal/fleet"

// way is what machines have in common for which the same workers will do, within one plan.
type way struct {
	class class
	from  fleet.WorkerID // "" where it makes no difference
}

// outlook is what a plan has found out of a way. Bookings only take room away, so that what doesn't
// go once doesn't go for the rest of the plan.
type outlook struct {
	looked int            // after how many bookings room was looked for last, plus one
	none   *fleet.Blocker // no worker will do; as it was then
	busy   bool           // those that would do are all busy
}

// next returns the target of a machine's move if it may start now. Otherwise it returns why not:
// there is no target, or it is merely not its turn (fleet.CodeNetworkLocked,
// fleet.CodeTooManyMoves).
func (t *tally) next(m *fleet.Machine, exclude map[fleet.WorkerID]string) (*entry, *fleet.Blocker) {
	need, w := t.needOf(m, exclude), way{class: classOf(m)}
	if exclude[m.Placement.Worker] == "" {
		w.from = m.Placement.Worker
	}
	o := t.ways[w]
	switch {
	case t.sharesElsewhere(m):
		o = &outlook{} // its own
	case o == nil:
		o = &outlook{}
		t.ways[w] = o
	}
	locked := t.isLocked(m.Network)
	if !locked && !o.busy && o.none == nil && !t.spent() && !t.spentOut(m.Placement.Worker) {
		if to := t.best(need, t.spentIn); to != nil {
			return to, nil
		}
		o.busy = true
	}
	if blocker := t.room(o, need); blocker != nil {
		return nil, blocker
	}
	if locked {
		return nil, networkLocked(m.Network)
	}
	return nil, tooMany()
}

// room returns why no worker will ever do as things are; nil if one does. It is looked for anew
// only where something was booked since.
func (t *tally) room(o *outlook, need Need) *fleet.Blocker {
	if now := len(t.starts) + 1; o.looked != now {
		o.looked = now
		if o.none != nil || t.best(need, nil) == nil {
			o.none = t.noPlace(need)
		}
	}
	if o.none == nil {
		return nil
	}
	b := *o.none
	b.Object = onMachine(need.Machine)
	return &b
}

// needOf returns what a machine needs that leaves its worker.
func (t *tally) needOf(m *fleet.Machine, exclude map[fleet.WorkerID]string) Need {
	if from := m.Placement.Worker; exclude[from] == "" {
		all := map[fleet.WorkerID]string{from: "the machine is on it"}
		for w, why := range exclude {
			all[w] = why
		}
		exclude = all
	}
	return NeedOf(*m, exclude)
}

// sharesElsewhere reports whether a machine has a share of a worker that it isn't on. It is free
// for it alone.
func (t *tally) sharesElsewhere(m *fleet.Machine) bool {
	return len(t.elsewhere[m.ID]) > 0
}

func networkLocked(n fleet.NetworkName) *fleet.Blocker {
	return &fleet.Blocker{Code: fleet.CodeNetworkLocked, Object: "network/" + string(n),
		Detail: "another machine of the network is moving", Remedy: "wait for it"}
}

func tooMany() *fleet.Blocker {
	return &fleet.Blocker{Code: fleet.CodeTooManyMoves, Object: "fleet",
		Detail: "as many moves are under way as the policy allows", Remedy: "wait for them"}
}
