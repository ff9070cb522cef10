package machine

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
)

// The kernel's OOM killer ends a process of a machine that runs out of memory. The process's parent
// sees nothing but SIGKILL. So the platform reads the kernel's count, and reports it to whoever
// started the process, and to the fleet.
const (
	oomPollEvery = 2 * time.Second
	// more than the time between the kernel's count and the end of the process that it kills
	oomRecent = 10 * time.Second
)

// watchMemory notices until ctx ends that the kernel has killed processes whose end nobody reports.
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

// pollOOM copies the kernel's count into the platform's state, and returns the newest report.
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

// oomWords returns a sentence if a process that began then and has just ended was, as far as can be
// known, killed for lack of memory; "" if it wasn't.
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

// endWords returns a sentence that says how a process ended.
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
