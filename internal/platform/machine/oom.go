package machine

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
)

// A machine that runs out of memory loses a process to the kernel's OOM killer. All that the
// process' parent sees is SIGKILL, so the platform reads the kernel's count, and says it to who
// asked for the process, and to the fleet.

const (
	oomPollEvery = 2 * time.Second
	// between the kernel's count and the end of what it has killed, and more
	oomRecent = 10 * time.Second
)

// watchMemory notices kills of processes whose end nobody reports, until ctx ends.
func (p *Platform) watchMemory(ctx context.Context) error {
	ticker := time.NewTicker(oomPollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			p.pollOOM(ctx)
			p.ownKills.Look()
		}
	}
}

// pollOOM takes the kernel's count into the platform's state, and returns the newest report.
func (p *Platform) pollOOM(ctx context.Context) *fleet.OOMReport {
	now, _ := p.status.get()
	c := p.container.peek()
	if c == nil || now.Bind == nil || now.Health.State.Final() {
		return now.Health.OOM
	}
	kills, err := c.OOMKills()
	if err != nil {
		p.log.DebugContext(ctx, "kills for lack of memory not counted", "error", err)
		return now.Health.OOM
	}
	known := now.Health.OOM
	if kills == 0 || known != nil && kills <= known.Kills {
		return known
	}
	found := &fleet.OOMReport{Kills: kills, Last: time.Now()}
	err = p.status.update(func(s *saved) {
		if s.Health.OOM == nil || s.Health.OOM.Kills < kills {
			s.Health.OOM = found
		}
	})
	if err != nil {
		p.log.ErrorContext(ctx, "state not saved", "error", err)
	}
	p.log.WarnContext(ctx, "out of memory: the kernel has killed a process of the machine",
		"kills", kills)
	return found
}

// oomWords says in words that a process which began then and has just ended, ended for lack of
// memory, as far as can be known; "" if it didn't.
func (p *Platform) oomWords(ctx context.Context, exit innerapi.Exit, began time.Time) string {
	const killed = 128 + int(unix.SIGKILL) // also what a shell makes of a child that was killed
	r := p.pollOOM(ctx)
	if exit.Code != killed || r == nil || r.Last.Before(began) || time.Since(r.Last) > oomRecent {
		return ""
	}
	now, _ := p.status.get()
	limit := ""
	if now.Bind != nil && now.Bind.Config.Resources.MemoryMiB > 0 {
		limit = fmt.Sprintf(" (it has %d MiB)", now.Bind.Config.Resources.MemoryMiB)
	}
	return "killed: the machine is out of memory" + limit
}

// endWords says in words how a process ended.
func (p *Platform) endWords(ctx context.Context, exit innerapi.Exit, began time.Time) string {
	code := fmt.Sprintf("exit code %d", exit.Code)
	if words := p.oomWords(ctx, exit, began); words != "" {
		return words + ", " + code
	}
	if exit.Signal != 0 {
		return code + ", " + unix.SignalName(unix.Signal(exit.Signal))
	}
	return code
}
