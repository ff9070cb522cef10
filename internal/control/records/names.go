package records

import (
	"cmp"
	"unique"

	"github.com/google/btree"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// names order machines by what people call them, so that a look-up costs what it finds.
type names struct {
	byName    *btree.BTreeG[*fleet.Machine] // by name, app, network and id
	byNetwork *btree.BTreeG[*fleet.Machine] // by network, app, name and id
}

func newNames() names {
	const degree = 32
	return names{
		byName: btree.NewG(degree, func(a, b *fleet.Machine) bool {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.App, b.App),
				cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID)) < 0
		}),
		byNetwork: btree.NewG(degree, func(a, b *fleet.Machine) bool {
			return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.App, b.App),
				cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) < 0
		}),
	}
}

func (n *names) change(old, now *fleet.Machine) {
	if old != nil {
		n.byName.Delete(old)
		n.byNetwork.Delete(old)
	}
	if now != nil {
		n.byName.ReplaceOrInsert(now)
		n.byNetwork.ReplaceOrInsert(now)
	}
}

// share has a machine's record use one copy of what many machines have in common.
func share(m *fleet.Machine) {
	one(&m.App)
	one(&m.Network)
	one(&m.Config.Image)
	one(&m.Config.User)
	one(&m.Desired)
	one(&m.State)
	one(&m.Reason)
	if m.Placement != nil {
		one(&m.Placement.Worker)
	}
	for i := range m.Config.Services {
		s := &m.Config.Services[i]
		one(&s.Name)
		one(&s.Dir)
		for j := range s.Cmd {
			one(&s.Cmd[j])
		}
	}
}

func one[S ~string](s *S) { *s = unique.Make(*s).Value() }

// Named returns the machines of that name, in that app unless it is "", for which keep holds; at
// most so many. They are ordered by app and network.
func (r *Records) Named(name fleet.MachineName, app fleet.AppName, keep func(fleet.Machine) bool,
	most int) []Row[fleet.Machine] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Row[fleet.Machine]
	r.indices.names.byName.AscendGreaterOrEqual(&fleet.Machine{Name: name, App: app},
		func(m *fleet.Machine) bool {
			if m.Name != name || app != "" && m.App != app {
				return false
			}
			if keep(*m) {
				list = append(list, *r.Machines.rows[m.ID])
			}
			return len(list) < most
		})
	return list
}

// MachinesIn returns the machines of a network, in one app unless it is "", ordered by app and
// name.
func (r *Records) MachinesIn(network fleet.NetworkName, app fleet.AppName) []*fleet.Machine {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []*fleet.Machine
	r.indices.names.byNetwork.AscendGreaterOrEqual(&fleet.Machine{Network: network, App: app},
		func(m *fleet.Machine) bool {
			if m.Network != network || app != "" && m.App != app {
				return false
			}
			list = append(list, m)
			return true
		})
	return list
}

// AllMachines returns all machines, ordered by network, app and name.
func (r *Records) AllMachines() []*fleet.Machine {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*fleet.Machine, 0, r.indices.names.byNetwork.Len())
	r.indices.names.byNetwork.Ascend(func(m *fleet.Machine) bool {
		list = append(list, m)
		return true
	})
	return list
}
