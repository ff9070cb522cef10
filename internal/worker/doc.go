// Package worker is one host of a fleet: it makes each machine's newest assignment true, with VMs
// that outlive it, and tells the control plane what it sees.
//
// Invariants:
//
//   - The newest generation seen of each machine is durable before anything is done for it. An
//     older one is refused, in whatever order they arrive, also after a restart.
//   - Nothing that a VM needs to go on (its gateway's token, its control token, its disk) exists in
//     memory only: a worker that is killed at any step finds its VMs again and goes on from there.
//   - Ending the worker ends no VM. Silence of the control plane ends no VM.
//   - A disk is reported released when the platform has closed it, or when the VM that had it is
//     gone and the report says "unclean"; the storage refuses what such a VM may still have under
//     way.
//   - The worker restarts no machine by itself: after a failure the control plane decides, by a
//     new generation.
//
// One goroutine per machine (an actor) owns the machine's state. After each event it takes the
// whole situation and does the one next step (see next), so a lost, late or repeated event does no
// harm. Steps that take time run as tasks. A machine has at most one task, which is interrupted
// when another step has become the next one.
package worker
