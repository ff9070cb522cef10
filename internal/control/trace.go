package control

import (
	"github.com/sluice-platform/sluice/internal/control/traces"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// addTraces tells a worker where in a move's trace it is. At most one of a machine's moves that
// aren't final owns it.
func addTraces(set fleet.AssignmentSet, moves []fleet.Move) {
	owners := map[fleet.MachineID]fleet.Move{}
	for _, mv := range moves {
		if mv.Step.Counts() {
			owners[mv.Machine] = mv
		}
	}
	for i := range set.Assignments {
		a := &set.Assignments[i]
		if mv, ok := owners[a.Machine]; ok {
			a.Trace = traces.Under(mv, a.Want).String()
		}
	}
}
