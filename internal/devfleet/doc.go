// Package devfleet runs a whole fleet on one machine: a server, and workers as separate processes.
// Each worker has a network namespace, an address, a data directory and a link on a bridge. So it
// can be killed, cut off or paused like a host.
//
// Invariants: every name on the machine (bridge, links, namespaces, cgroups) is derived from the
// fleet's directory, so that Down finds and removes all of it, also after a crash at any point of
// Up; a process is only ever signalled when its start time proves that it is the one we started;
// several fleets may run side by side.
package devfleet
