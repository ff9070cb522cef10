package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// readyTimeout bounds how long the state may take to answer before the server doesn't count as
// ready.
const readyTimeout = 2 * time.Second

// Lacks says why this server can't do its work now; nothing, if it can. Anybody may read it: it
// names no machine, no address and no record.
func (c *Control) Lacks(ctx context.Context) []string {
	var why []string
	if !c.records.Loaded() {
		why = append(why, "it has not read its records yet")
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := c.records.Probe(ctx); err != nil {
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
