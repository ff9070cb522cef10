package sim

import (
	"maps"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// used is the record of what a scope uses.
type used struct {
	Used fleet.Amounts `json:"used"`
}

// baseImage is the size of the image of all machines.
const baseImage = 1 << 30

// checkUsage: after each commit, whatever it did, what networks and apps are said to use is what
// their machines use.
func (s *shadow) checkUsage() {
	want := map[string]fleet.Amounts{}
	for _, m := range s.machines {
		for _, of := range fleet.QuotaScopes(m.Network, m.App) {
			if want[of.ID()] == nil {
				want[of.ID()] = fleet.Amounts{}
			}
			want[of.ID()].Add(m.Uses(baseImage), 1)
		}
	}
	for id, u := range s.usage {
		if !maps.Equal(want[id], u.Used) && id != (fleet.QuotaScope{}).ID() {
			s.w.violated("%s is said to use %v, and its machines use %v", id, u.Used, want[id])
		}
		delete(want, id)
	}
	for id, w := range want {
		s.w.violated("%s is said to use nothing, and its machines use %v", id, w)
	}
}
