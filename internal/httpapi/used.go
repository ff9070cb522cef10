package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// writeUsedEvery is how often it is written when tokens were last used: never on a request's path.
const writeUsedEvery = time.Minute

// usedTokens collects when tokens were used since that was last written.
type usedTokens struct {
	mu   sync.Mutex
	last map[fleet.TokenID]time.Time
}

func (u *usedTokens) note(t fleet.Token, now time.Time) {
	if now.Sub(t.LastUsedAt) < writeUsedEvery {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[fleet.TokenID]time.Time{}
	}
	u.last[t.ID] = now
}

func (u *usedTokens) take() map[fleet.TokenID]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.last
	u.last = nil
	return taken
}

// writeUsed writes it every so often until ctx ends. What can't be written is lost: it is only for
// people to see which tokens nobody needs.
func (a *API) writeUsed(ctx context.Context) error {
	tick := time.NewTicker(writeUsedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		used := a.callers.used.take()
		if len(used) == 0 {
			continue
		}
		if err := a.deps.Tokens.UseTokens(ctx, used); err != nil {
			a.deps.Log.WarnContext(ctx, "last use of tokens not written", "error", err)
		}
	}
}
