package worker

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

func TestNext(t *testing.T) {
	running := situation{want: fleet.WantRunning, hasRun: true, hasVM: true, bound: true,
		binding: bindDone}
	with := func(change func(*situation)) situation { s := running; change(&s); return s }
	for name, c := range map[string]struct {
		s    situation
		want step
	}{
		"new assignment": {situation{want: fleet.WantRunning}, stepBegin},
		"forgotten, named again by an old one": {situation{want: fleet.WantRunning,
			forgotten: true}, stepNone},
		"withdrawn, nothing left": {situation{want: fleet.WantReleased,
			withdrawn: true}, stepForget},
		"prepare: no VM": {situation{want: fleet.WantPrepared,
			hasRun: true}, stepClaim},
		"prepare: VM": {situation{want: fleet.WantPrepared, hasRun: true,
			hasVM: true}, stepPrepare},
		"prepare: told": {situation{want: fleet.WantPrepared, hasRun: true,
			hasVM: true, prepared: true}, stepNone},
		"prepare: warmed for another disk": {situation{want: fleet.WantPrepared, hasRun: true,
			hasVM: true, prepared: true, older: true}, stepDrop},
		"prepare while an older one runs here": {
			with(func(s *situation) { s.want, s.older = fleet.WantPrepared, true }), stepNone},
		"prepared, withdrawn": {situation{want: fleet.WantPrepared, hasRun: true,
			hasVM: true, prepared: true, withdrawn: true}, stepDrop},
		"prepared, released": {situation{want: fleet.WantReleased, hasRun: true,
			hasVM: true, prepared: true}, stepDrop},
		"prepared, discarded": {situation{want: fleet.WantDiscarded, hasRun: true,
			hasVM: true, prepared: true}, stepDiscard},
		"run: no VM": {situation{want: fleet.WantRunning,
			hasRun: true}, stepClaim},
		"run: prepared VM": {situation{want: fleet.WantRunning, hasRun: true,
			hasVM: true, prepared: true}, stepIntend},
		"run: written down": {
			with(func(s *situation) { s.binding = bindNeeded }), stepBind},
		"run: told, no answer": {
			with(func(s *situation) { s.binding = bindTried }), stepBind},
		"run: found again, not heard of yet": {
			with(func(s *situation) { s.binding = bindUnknown }), stepNone},
		"runs": {running, stepNone},
		"runs, withdrawn: silence ends nothing": {with(func(s *situation) { s.withdrawn = true }),
			stepNone},
		"runs, VM gone": {with(func(s *situation) { s.hasVM = false }),
			stepLost},
		"runs, superseded": {with(func(s *situation) { s.older = true }),
			stepDiscard},
		"runs, discarded": {
			with(func(s *situation) { s.want = fleet.WantDiscarded }), stepDiscard},
		"runs, to release": {
			with(func(s *situation) { s.want = fleet.WantReleased }), stepRelease},
		"found again, to release": {with(func(s *situation) {
			s.want,
				s.binding = fleet.WantReleased, bindUnknown
		}), stepRelease},
		"never told, to release": {with(func(s *situation) {
			s.want,
				s.binding = fleet.WantReleased, bindNeeded
		}), stepDrop},
		"maybe told, to release": {with(func(s *situation) {
			s.want,
				s.binding = fleet.WantReleased, bindTried
		}), stepRelease},
		"releasing, wanted again": {with(func(s *situation) { s.releasing = true }),
			stepRelease},
		"releasing, discarded": {with(func(s *situation) {
			s.releasing,
				s.want = true, fleet.WantDiscarded
		}), stepDiscard},
		"a want of a newer release": {
			with(func(s *situation) { s.want = "hibernated" }), stepNone},
		"ended, remains": {with(func(s *situation) { s.ended = true }),
			stepRemove},
		"failed": {with(func(s *situation) {
			s.ended, s.hasVM = true,
				false
		}), stepNone},
		"failed, next attempt": {
			with(func(s *situation) { s.ended, s.hasVM, s.older = true, false, true }), stepBegin},
		"failed, to release": {with(func(s *situation) {
			s.ended, s.want = true,
				fleet.WantReleased
		}), stepReportReleased},
		"failed, withdrawn": {with(func(s *situation) {
			s.ended, s.hasVM,
				s.withdrawn = true, false, true
		}), stepForget},
		"released, wanted at the same attempt": {with(func(s *situation) {
			s.ended, s.released,
				s.hasVM = true, true, false
		}), stepNone},
		"released, remains": {with(func(s *situation) {
			s.ended, s.released,
				s.want = true, true, fleet.WantReleased
		}), stepRemove},
		"warming up failed, now to run": {situation{want: fleet.WantRunning,
			hasRun: true, ended: true,
			endedWant: fleet.WantPrepared}, stepBegin},
		"warming up failed": {situation{want: fleet.WantPrepared, hasRun: true, ended: true,
			endedWant: fleet.WantPrepared}, stepNone},
		"starting failed": {situation{want: fleet.WantRunning, hasRun: true, ended: true,
			endedWant: fleet.WantRunning}, stepNone},
		"dropped, named again": {situation{want: fleet.WantRunning, hasRun: true, ended: true,
			released:  true,
			endedWant: fleet.WantRunning}, stepBegin},
	} {
		if got := next(c.s); got != c.want {
			t.Errorf("%s: next is %q, want %q", name, got, c.want)
		}
	}
}
