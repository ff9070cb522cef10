// Package pool keeps VMs booted ahead of time, empty and answering, so that a machine that arrives
// finds one at once; and boots one on demand where it doesn't.
//
// Invariants:
//
//   - A VM's control token and release are durable before the VM is started, so that a restarted
//     worker can use or remove every VM that it finds.
//   - A VM is given out once. What comes out of Claim has answered, and was never told anything.
//   - Whatever ends the pool leaves its VMs running.
//   - Refilling is bounded, backs off when boots fail, and stands back while machines are being
//     moved, and from a host under pressure, where fewer VMs are booted at once, too.
//   - A boot that gets further is not given up.
package pool
