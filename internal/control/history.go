package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// How much of what is over stays in the state. What is older is forgotten, oldest first.
const (
	keepMoves  = 500
	keepDrains = 100
	pruneBatch = 50 // per transaction
)

// prune forgets the oldest ended drains, and the oldest ended moves of no drain that goes on.
func (c *Control) prune(ctx context.Context) error {
	moves, drains := c.cache.sizes()
	if moves <= keepMoves && drains <= keepDrains {
		return nil
	}
	t := c.begin()
	over := drains - keepDrains
	for _, d := range all(c.cache, c.cache.drains) { // ids ascend with time
		if over <= 0 || len(t.ops) >= pruneBatch {
			break
		}
		if d.val.State.Final() {
			t.del(keyDrain(d.val.ID), d.rev)
			over--
		}
	}
	over = moves - keepMoves
	for _, mv := range all(c.cache, c.cache.moves) {
		if over <= 0 || len(t.ops) >= pruneBatch {
			break
		}
		if mv.val.Step.Final() && !c.goesOn(mv.val.Drain) {
			t.del(keyMove(mv.val.ID), mv.rev)
			over--
		}
	}
	if len(t.ops) == 0 {
		return nil
	}
	return t.commit(ctx)
}

func (c *Control) goesOn(id fleet.DrainID) bool {
	d, ok := c.cache.drain(id)
	return ok && !d.val.State.Final()
}

// sizes returns how many moves and drains there are.
func (c *cache) sizes() (moves, drains int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.moves), len(c.drains)
}
