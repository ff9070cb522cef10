package worker

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/pool"
)

// A disk counts its flushes since it was attached, and is asked for them when somebody scrapes. The
// worker adds up what is new in each answer, so that its own counts don't go back when a VM goes
// away. A platform tells the last of them with its release. What a VM that dies has counted since
// it was asked is lost.

// flushTotal is what flushes on this worker took since it was started. Safe for concurrent use.
type flushTotal struct {
	mu  sync.Mutex
	all fleet.DiskFlushes
}

func (t *flushTotal) add(now, earlier fleet.DiskFlushes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = t.all.Plus(now, earlier)
}

func (t *flushTotal) load() fleet.DiskFlushes {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}

// flushCount is what one VM's disk has counted, as far as it was heard.
type flushCount struct {
	vm      fleet.VMID
	adopted bool // an earlier worker has told what is heard first
	heard   bool
	last    fleet.DiskFlushes
}

// countFlushes takes in what a VM's disk has counted; nil: nothing. What comes late, or is of an
// earlier VM, changes nothing. Whatever a VM makes up, no count goes back or takes more room.
func (m *machine) countFlushes(vm fleet.VMID, told *fleet.DiskFlushes) {
	if told == nil {
		return
	}
	now := told.Bounded()
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &m.flushes
	if f.vm != vm || now.Times.Count() < f.last.Times.Count() {
		return
	}
	if f.heard || !f.adopted {
		m.host.flushes.add(now, f.last)
	}
	f.heard, f.last = true, now
}

const (
	askFlushesFor = time.Second
	askFlushesOf  = 16 // platforms at a time
)

// askFlushes has the platforms of running machines say what their disks have counted. One that
// doesn't answer in time has what it said before.
func (w *Worker) askFlushes(machines []*machine) {
	ctx, cancel := context.WithTimeout(context.Background(), askFlushesFor)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(askFlushesOf)
	for _, m := range machines {
		m.mu.Lock()
		vm, silent := m.reachable, !m.silent.IsZero()
		m.mu.Unlock()
		if vm == nil || silent {
			continue
		}
		group.Go(func() error {
			if h, err := pool.Probe(ctx, vm); err == nil {
				m.countFlushes(vm.ID(), h.Flushes)
			}
			return nil
		})
	}
	_ = group.Wait() // who doesn't answer is told of elsewhere
}
