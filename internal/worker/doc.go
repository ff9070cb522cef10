// Package worker is one host of a fleet: it makes each machine's newest assignment true, with VMs
// that outlive it, and tells the control plane what it sees.
//
// Invariants:
//
//   - The newest generation seen of each machine is durable before anything is done for it, and
//     an older one is refused, in whatever order they come, also after a restart.
//   - Nothing that a VM needs to go on (its gateway's token, its control token, its disk) exists in
//     memory only: a worker that is killed at any step finds its VMs again and goes on from there.
//   - Ending the worker ends no VM. Silence of the control plane ends no VM.
//   - A disk is reported released when the platform has closed it, or when the VM that had it is
//     gone and the report says "unclean"; the storage refuses what such a VM may still have under
//     way.
//   - The worker starts nothing again by itself: after a failure, control decides, by a new
//     attempt.
//
// One goroutine per machine (an actor) owns what is known of it. It looks at the whole situation
// after each event and does the one next thing (see next); so an event that is lost, late or
// doubled changes nothing. Things that take time are tasks: at most one per machine, interrupted
// when another thing has become the next one.
package worker
