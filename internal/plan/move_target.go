package plan

import (
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Placer chooses a worker for what is needed, or says why there is none.
type Placer func(Need) (fleet.WorkerID, *fleet.Blocker)

// Target is what a move does whose target won't do.
type Target struct {
	// Action is MoveRetarget or MoveNextTarget, with To, or what is done where there is no other.
	Action MoveAction
	To     fleet.WorkerID
	Why    *fleet.Blocker
	// Refused are the workers that the move doesn't reserve on again.
	Refused []fleet.WorkerID
}

// Retarget returns where a move reserves next whose source still runs the machine; why is nil where
// the present target takes no machines any more. Where there is no other, the move is undone:
// whoever wanted it plans again, and says what is missing.
func Retarget(in MoveInput, why *fleet.Blocker, place Placer) Target {
	mv, refused := in.Move, in.Move.Refused
	if why != nil {
		refused = append(slices.Clip(refused), mv.To)
	} else {
		why = blocker(fleet.CodeTargetLost, onWorker(mv.To),
			string(mv.To)+" takes no machines any more", "sluice machine migrate without --to")
	}
	exclude := excluding(refused)
	exclude[mv.From] = "the machine is on it"
	to, blocked := place(NeedOf(in.Machine, exclude))
	switch {
	case mv.Pinned, blocked != nil && why.Code == fleet.CodeNotReady:
		return Target{Action: MoveUndo, Why: why}
	case blocked != nil:
		return Target{Action: MoveUndo, Why: blocked}
	}
	return Target{Action: MoveRetarget, To: to, Why: why, Refused: refused}
}

// NextTarget returns where a move goes next whose machine runs nowhere, because its target fails:
// to another target, to the same again, back to its source, or nowhere. attempts is how many
// targets a move tries.
func NextTarget(in MoveInput, why *fleet.Blocker, attempts int, place Placer) Target {
	mv, committed := in.Move, in.Move.Step.PastCommit()
	to, blocked := place(OtherTargets(mv, in.Machine, why.Detail))
	if to == "" && len(mv.Refused) > 0 && in.Source.Health != Alive {
		// Where no VM got ready before may be better than nowhere. A source that lives is better.
		mv.Refused = nil
		to, blocked = place(OtherTargets(mv, in.Machine, why.Detail))
	}
	spent := mv.Pinned || committed && mv.Attempt >= attempts
	switch {
	case to != "" && !spent:
	case in.Source.Health == Alive:
		return Target{Action: MovePutBack, Why: why}
	case !committed:
		return Target{Action: MoveWait, Why: blocked}
	case in.TargetOpen && in.Target.Health == Alive && !spent:
		to = mv.To
	case spent || in.Target.Health != Down:
		return Target{Action: MoveGiveUp, Why: why}
	default:
		return Target{Action: MoveWait, Why: blocked}
	}
	return Target{Action: MoveNextTarget, To: to, Why: why}
}

// OtherTargets returns what the machine of a move needs on a third worker: neither on its source,
// nor on its target, because of why, nor where no VM got ready for it.
func OtherTargets(mv fleet.Move, m fleet.Machine, why string) Need {
	need := NeedOf(m, excluding(mv.Refused))
	need.Exclude[mv.From], need.Exclude[mv.To] = "the machine comes from it", why
	return need
}

// excluding returns those on which no VM got ready, as an exclusion.
func excluding(refused []fleet.WorkerID) map[fleet.WorkerID]string {
	exclude := map[fleet.WorkerID]string{}
	for _, w := range refused {
		exclude[w] = "no VM got ready on it"
	}
	return exclude
}
