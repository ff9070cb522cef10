package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// readyTimeout bounds how long the state may take to answer before the server doesn't count as
// ready.
const readyTimeout = 2 * time.Second

// Lacks says why this server can't do its work now; nothing, if it can. Anybody may read it: it
// names no machine, no address and no record.
func (c *Control) Lacks(ctx context.Context) []string {
	var why []string
	if !c.loaded.Load() {
		why = append(why, "it has not read its records yet")
	}
	if !c.deps.Leader() {
		why = append(why, "it doesn't lead the fleet")
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_, err := c.deps.Store.Get(ctx, keyCounters)
	if err != nil && !errs.Is(err, errs.NotFound) {
		why = append(why, "its state doesn't answer")
	}
	return why
}

// ended tells who counts moves of those that this server has just ended.
func (c *Control) ended(moves []fleet.Move) {
	if c.deps.MoveEnded == nil {
		return
	}
	for _, mv := range moves {
		c.deps.MoveEnded(mv)
	}
}
