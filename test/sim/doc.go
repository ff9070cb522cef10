// Package sim runs the control plane against a whole fleet that exists only in memory: one
// goroutine, a virtual clock, and a seed that decides everything else. Workers, VMs and disks are
// modelled after the real ones (what is durable, what dies with which process, what the storage
// refuses); the control plane is the real one, on the in-memory state.
//
// In a run, messages are delayed, lost and repeated, servers die between any two writes or lose the
// answer to one, an old server goes on acting, worker daemons and hosts die and come back, and
// hosts are cut off from the server while they still reach the store. The invariants of
// docs/architecture.md are checked at every commit; when the faults have stopped, everything that
// was asked for must come true, or name what it waits for.
package sim
