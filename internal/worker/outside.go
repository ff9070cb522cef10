package worker

import (
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
)

// Lacks returns why the worker isn't ready to work; empty: it is. Anybody may read it: it names no
// machine, address or store.
func (w *Worker) Lacks() []string {
	w.mu.Lock()
	told := w.revision != 0
	w.mu.Unlock()
	var why []string
	if !w.joined.Load() {
		why = append(why, "it has not joined the fleet since it was started")
	}
	if !told {
		why = append(why, "it has not been told its assignments since it was started")
	}
	if w.conditions.has(fleet.ConditionStoreUnreachable) {
		why = append(why, "it can't reach the fleet's object store")
	}
	return why
}

// figures returns the worker's present state, for one scrape.
func (w *Worker) figures() metrics.Figures {
	w.mu.Lock()
	machines := slices.Collect(maps.Values(w.machines))
	w.mu.Unlock()
	f := metrics.Figures{
		Conditions: w.conditionsNow(), Pressure: w.pressure.Load(),
		PoolReady: w.pool.Ready(), PoolBooting: w.pool.Booting(), PoolWanted: w.cfg.Pool,
	}
	if k := w.deps.StoreKeys.Report(); k != nil {
		f.StoreKeyExpires = k.Expires
	}
	w.askFlushes(machines)
	f.Flushes, f.FlushesOf = w.flushes.load(), map[fleet.VMID]fleet.DiskFlushes{}
	for _, m := range machines {
		if r, _, _ := m.snapshot(); r != nil {
			f.VMs = append(f.VMs, *r)
		}
		m.mu.Lock()
		if m.reachable != nil && m.flushes.heard {
			f.FlushesOf[m.flushes.vm] = m.flushes.last
		}
		m.mu.Unlock()
	}
	return f
}
