package machine

import (
	"context"
	"time"
)

// ownEvery is how old what a machine is shown of itself may be.
const ownEvery = 2 * time.Second

// showOwn keeps what the machine sees of its processors, memory and load up to date until ctx ends.
// A frozen machine reads nothing, and a read that fails leaves what was shown last.
func (p *Platform) showOwn(ctx context.Context) error {
	ticker := time.NewTicker(ownEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, _ := p.status.get()
		c := p.container.peek()
		if c == nil || now.Bind == nil || !now.Health.State.Up() {
			continue
		}
		if err := c.ShowOwn(now.Bind.Config.Resources); err != nil {
			p.log.DebugContext(ctx, "what the machine is shown of itself is old", "error", err)
		}
	}
}
