package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// usedTokens collects when tokens were used since that was last written, which is never done on a
// request's path.
type usedTokens struct {
	every time.Duration // that it is written
	mu    sync.Mutex
	last  map[fleet.TokenID]time.Time
}

func (u *usedTokens) note(t fleet.Token, now time.Time) {
	if now.Sub(t.LastUsedAt) < u.every {
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
	tick := time.NewTicker(a.cfg.UsedEvery)
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
