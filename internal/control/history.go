package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// How much of what is over stays in the state. What is older is forgotten, oldest first.
const (
	keepMoves  = 500
	keepDrains = 100
	pruneBatch = 50 // per transaction
	pruneAgain = time.Second
)

// prune forgets the oldest ended drains, and the oldest ended moves of no drain that goes on.
func (c *Control) prune(ctx context.Context) error {
	moves, drains := c.records.Moves.Len(), c.records.Drains.Len()
	if moves <= keepMoves && drains <= keepDrains || c.now().Before(c.pruneNext) {
		return nil
	}
	t := c.records.Begin()
	over := drains - keepDrains
	for _, d := range c.records.Drains.All() { // ids ascend with time
		if over <= 0 || t.Len() >= pruneBatch {
			break
		}
		if d.Val.State.Final() {
			records.Delete(t, d)
			over--
		}
	}
	over = moves - keepMoves
	for _, mv := range c.records.Moves.All() {
		if over <= 0 || t.Len() >= pruneBatch {
			break
		}
		if mv.Val.Step.Final() && !c.goesOn(mv.Val.Drain) {
			records.Delete(t, mv)
			over--
		}
	}
	if t.Len() == 0 {
		// all that is over belongs to a drain that goes on; to look is not for each of its steps
		c.pruneNext = c.now().Add(pruneAgain)
		return nil
	}
	return t.Commit(ctx)
}

func (c *Control) goesOn(id fleet.DrainID) bool {
	d, ok := c.records.Drains.Get(id)
	return ok && !d.Val.State.Final()
}
