package control

import (
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// deriveAssignments is a pure function of the records around a worker and of what it reports. It
// returns what the worker shall make true, ordered by machine, without a revision and peers. Per
// machine the first rule that applies decides:
//
//	its disk is still being made                             nothing
//	placed here, and a move has told it to stop              released
//	placed here, and the user or a new start wants it gone   released
//	placed here                                              running
//	a move that holds its network's lock is coming here      prepared
//	reported here, and placed or given out elsewhere since   discarded
//	reported here, and placed nowhere                        released
//	reported here, destroyed while the worker was lost       discarded
//	reported here, unknown                                   nothing: silence kills no VM
func deriveAssignments(in records.Around, reports []fleet.VMReport) fleet.AssignmentSet {
	set := fleet.AssignmentSet{Worker: in.Worker.ID}
	owner := map[fleet.MachineID]fleet.Move{}
	for _, mv := range in.Moves {
		if m, ok := in.Machines[mv.Machine]; ok && m.Owner == moveOwner(mv.ID) {
			owner[mv.Machine] = mv
		}
	}
	reported := map[fleet.MachineID]fleet.VMReport{}
	for _, v := range reports {
		reported[v.Machine] = v
		if _, known := in.Machines[v.Machine]; known {
			continue
		}
		if tomb, ok := in.Tombstones[v.Machine]; ok && !withdrawn(v) {
			set.Assignments = append(set.Assignments, fleet.Assignment{Machine: v.Machine,
				Generation: max(tomb.Generation, v.Generation), Want: fleet.WantDiscarded,
				Instance: v.Instance})
		}
	}
	networks := map[uint32]bool{}
	for id, m := range in.Machines {
		mv, moving := owner[id]
		a, ok := assignmentOf(in.Worker, m, mv, moving, reported)
		if !ok {
			continue
		}
		set.Assignments = append(set.Assignments, a)
		if a.Want == fleet.WantRunning || a.Want == fleet.WantPrepared ||
			a.Want == fleet.WantReleased {
			networks[m.NetworkID] = true
		}
	}
	for n := range networks {
		set.Networks = append(set.Networks, n)
	}
	slices.Sort(set.Networks)
	slices.SortFunc(set.Assignments, func(a, b fleet.Assignment) int {
		return strings.Compare(string(a.Machine), string(b.Machine))
	})
	return set
}

func assignmentOf(w fleet.Worker, m fleet.Machine, mv fleet.Move, moving bool,
	reported map[fleet.MachineID]fleet.VMReport) (fleet.Assignment, bool) {
	v, seen := reported[m.ID]
	here := m.Placement != nil && m.Placement.Worker == w.ID
	switch {
	case strings.HasPrefix(m.Owner, ownerCreate):
		return fleet.Assignment{}, false
	case here && moving && mv.Step.SourceToldToStop() && m.Placement.Generation == mv.FromGen:
		return placedAssignment(m, fleet.WantReleased), true
	case here && (m.State == fleet.MachineStopping || !moving && m.Desired != fleet.DesiredStarted):
		return placedAssignment(m, fleet.WantReleased), true
	case here:
		return placedAssignment(m, fleet.WantRunning), true
	case moving && mv.To == w.ID && mv.Reason != fleet.ReasonFailover && mv.Step.TargetKeepsWarm():
		return assignment(m, fleet.WantPrepared, mv.ToGen, mv.Instance,
			fleet.Placement{Address: fleet.PrivateAddress(m.NetworkID, w.Number, m.Number)}), true
	case !seen || withdrawn(v):
		return fleet.Assignment{}, false
	case m.Placement == nil && v.Generation >= m.Generation && plan.HasVM(&v):
		return assignment(m, fleet.WantReleased, v.Generation, v.Instance, fleet.Placement{}), true
	case v.Generation > m.Generation:
		// the records are behind the worker: whoever knows more shall say it
		return fleet.Assignment{}, false
	default:
		return assignment(m, fleet.WantDiscarded, m.Generation, v.Instance, fleet.Placement{}), true
	}
}

// withdrawn reports whether nothing is left of a machine on a worker but what the worker has to say
// about it. Once its assignment is withdrawn, it is forgotten.
func withdrawn(v fleet.VMReport) bool { return v.Phase == fleet.PhaseReleased && !v.HasVM }

func placedAssignment(m fleet.Machine, want fleet.Want) fleet.Assignment {
	return assignment(m, want, m.Placement.Generation, m.Placement.Instance, *m.Placement)
}

func assignment(m fleet.Machine, want fleet.Want, gen fleet.Generation, instance fleet.InstanceID,
	p fleet.Placement) fleet.Assignment {
	return fleet.Assignment{Machine: m.ID, Generation: gen, Want: want, Instance: instance,
		Name: m.Name, App: m.App,
		Network: m.Network, NetworkID: m.NetworkID, Address: p.Address, Disk: m.Disk,
		Config: m.Config, Encrypted: m.DiskKey != 0}
}
