package control

import (
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// whatIsLost completes the news of an unclean end, for people: it is the first thing that they ask.
const whatIsLost = "nothing that was fsynced is lost; what was not yet flushed may be"

// unclean says why a generation's VM ended without closing the machine's disk; "" if it closed it,
// or if its worker tells of no end.
func unclean(s plan.Sight, gen fleet.Generation) string {
	v := s.VM
	if v == nil || v.Generation != gen || v.Error == "" || v.Phase != fleet.PhaseReleased &&
		v.Phase != fleet.PhaseFenced {
		return ""
	}
	return strings.TrimPrefix(v.Error, "unclean: ")
}

// exitEvent is the line of a machine's history that says that it left its worker, and, where that
// was no clean end, why not and what may be lost. reason is the same for the machine's record; ""
// after a clean end.
func exitEvent(m fleet.Machine, s plan.Sight,
	state fleet.MachineState) (ev fleet.MachineEvent, reason string) {
	ev = fleet.MachineEvent{State: state, Event: eventExit, Source: sourceWorker(s.Worker),
		Instance: m.Placement.Instance}
	if why := unclean(s, m.Placement.Generation); why != "" {
		ev.Info = map[string]string{"unclean": why, "lost": whatIsLost}
		reason = "not cleanly: " + why + "; " + whatIsLost
	}
	return ev, reason
}
