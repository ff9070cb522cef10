package worker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// privateNow returns what the newest set of assignments has brought for the machine alone.
func (m *machine) privateNow() fleet.Private {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.private
}

// awaitsKeys reports whether a step needs the keys of the machine's disk, and they are not here. A
// worker that was started again has none before it has heard from the server: they are on no disk.
func (m *machine) awaitsKeys(ctx context.Context, s step) bool {
	awaits := (s == stepPrepare || s == stepBind) && m.rec.Assignment.Encrypted &&
		len(m.privateNow().DiskKeys) == 0
	m.mu.Lock()
	was := !m.keyless.IsZero()
	switch {
	case awaits && !was:
		m.keyless = time.Now()
	case !awaits:
		m.keyless = time.Time{}
	}
	m.mu.Unlock()
	if awaits && !was {
		m.log.WarnContext(ctx, "the machine waits for the keys of its disk, which only the server "+
			"has", "step", string(s))
		m.host.changed()
	}
	return awaits
}

// keyless returns which machines wait for the keys of their disks, and since when; nil if none
// does.
func (w *Worker) keyless() (since time.Time, err error) {
	w.mu.Lock()
	machines := slices.Collect(maps.Values(w.machines))
	w.mu.Unlock()
	var names []string
	for _, m := range machines {
		m.mu.Lock()
		at := m.keyless
		m.mu.Unlock()
		if at.IsZero() {
			continue
		}
		names = append(names, string(m.id))
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	if len(names) == 0 {
		return since, nil
	}
	slices.Sort(names)
	return since, errs.New(errs.Unavailable, "%d machines wait for the keys of their disks, the "+
		"first is %s", len(names), names[0])
}
