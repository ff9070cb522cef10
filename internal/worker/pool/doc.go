// Package pool keeps VMs booted ahead of time, empty and answering, so that a new machine gets one
// at once. It boots one on demand when none is ready.
//
// Invariants:
//
//   - A VM's control token and release are durable before the VM is started. So a restarted worker
//     can use or remove every VM that it finds.
//   - A VM is given out once. A VM from Claim has answered, and is empty.
//   - Whatever ends the pool leaves its VMs running.
//   - Refilling is bounded, and backs off when boots fail. It waits while machines are being moved,
//     and while the host is under pressure, under which also fewer VMs boot at once.
//   - A boot that makes progress is not given up.
package pool
