package worker

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keepForgotten is how long the generation of a machine that has left is remembered, so that a late
// old assignment is refused. After that the store refuses such an attach.
const keepForgotten = 24 * time.Hour

// adopt takes over what earlier workers on this host left. VMs of machines keep running, empty VMs
// go to the pool, and unknown ones are removed.
func (w *Worker) adopt(ctx context.Context) error {
	records, err := w.records.all(w.now(), keepForgotten)
	if err != nil {
		return err
	}
	entries, err := w.registry.All()
	if err != nil {
		return err
	}
	found, err := w.deps.Driver.Adopt(ctx)
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "find the VMs of earlier workers")
	}
	vms := make(map[fleet.VMID]runtime.VM, len(found))
	for _, vm := range found {
		vms[vm.ID()] = vm
	}
	var links []fleet.MachineLink
	for id, rec := range records {
		if rec.Run == nil {
			continue // only its generation matters
		}
		m := newMachine(w, id, rec)
		if vm, ok := vms[rec.Run.VM]; ok {
			run := rec.Run
			m.found = pool.Attach(vm, pool.Entry{VM: run.VM, ControlToken: run.ControlToken,
				Release: run.Release})
			delete(vms, run.VM)
			if run.Bound && run.End == nil {
				a := rec.Assignment
				links = append(links, fleet.MachineLink{
					Machine: id, NetworkID: a.NetworkID, Address: a.Address,
					Interface: vm.HostLink(),
				})
			}
		}
		delete(entries, rec.Run.VM)
		w.launch(m)
	}
	w.adopted.Store(true)
	w.log.InfoContext(ctx, "looked for vms of earlier workers", "found", len(found), "machines",
		len(links), "others", len(vms))
	err = w.deps.HostNet.Restore(ctx, links)
	w.conditions.set(fleet.ConditionNetworkFailing, err)
	w.poolOrRemove(ctx, vms, entries)
	return nil
}

// poolOrRemove takes VMs that belong to no machine. It gives those to the pool that are of the
// present release, empty and answer, and removes the rest.
func (w *Worker) poolOrRemove(ctx context.Context, vms map[fleet.VMID]runtime.VM,
	entries map[fleet.VMID]pool.Entry) {
	for id, vm := range vms {
		entry, known := entries[id]
		delete(entries, id)
		w.group.Go(func() error {
			v := pool.Attach(vm, entry)
			if known && entry.Release == w.cfg.Release && vm.Status().Running {
				if h, err := pool.Probe(ctx, v); err == nil && h.State == guestapi.StateEmpty {
					w.pool.Adopt(v)
					return nil
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			w.log.InfoContext(ctx, "removing a vm that belongs to nobody", "vm_id", string(id))
			if err := w.pool.Discard(ctx, v); err != nil {
				w.log.WarnContext(ctx, "vm could not be removed", "vm_id", string(id), "error", err)
			}
			return nil
		})
	}
	for id := range entries { // remembered, and not there any more
		if err := w.registry.Drop(id); err != nil {
			w.log.WarnContext(ctx, "vm could not be forgotten", "vm_id", string(id), "error", err)
		}
	}
}

// launch starts a machine's actor. Only one goroutine launches at any time: adopt, then the poll.
func (w *Worker) launch(m *machine) {
	w.mu.Lock()
	w.machines[m.id] = m
	w.mu.Unlock()
	w.group.Go(func() error { return m.run(w.actorsCtx) })
}

// resume continues a run that an earlier worker began.
func (m *machine) resume(ctx context.Context) {
	run := m.rec.Run
	if run == nil {
		return
	}
	if run.Timeline == nil {
		run.Timeline = map[fleet.Phase]time.Time{}
	}
	if m.found == nil {
		run.VM, m.dirty = "", run.VM != ""
		return
	}
	m.log.InfoContext(ctx, "found the machine's vm again", "vm_id", string(run.VM), "phase",
		string(run.Phase))
	m.connect(m.found)
	if run.End != nil {
		m.closeGate()
		m.stopFollowing()
	}
}
