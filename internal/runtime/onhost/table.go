package onhost

import (
	"sync"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Table has the VMs that a driver returned, and the ids that it is at work on. Its zero value is empty, and its methods may be
// called at the same time.
type Table[VM any] struct {
	mu  sync.Mutex
	vms map[fleet.VMID]*VM // nil while somebody has reserved the id
}

// Reserve claims an id for starting or adopting a VM, until Settle; known is whether somebody has it already.
func (t *Table[VM]) Reserve(id fleet.VMID) (vm *VM, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	vm, known = t.vms[id]
	if !known {
		if t.vms == nil {
			t.vms = map[fleet.VMID]*VM{}
		}
		t.vms[id] = nil
	}
	return vm, known
}

// Settle ends a reservation, with a VM or without.
func (t *Table[VM]) Settle(id fleet.VMID, vm *VM) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if vm == nil {
		delete(t.vms, id)
		return
	}
	t.vms[id] = vm
}
