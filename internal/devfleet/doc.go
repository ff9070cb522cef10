// Package devfleet runs a whole fleet on one machine: a server, and workers as separate processes.
// Each worker has a network namespace, an address, a data directory and a link on a bridge. So it
// can be killed, cut off or paused like a host.
//
// Invariants: every name on the machine (bridge, links, namespaces, cgroups) is derived from the
// fleet's directory. So Down finds and removes everything, also after a crash at any point of Up. A
// process gets a signal only if its start time proves that the fleet started it. Several fleets may
// run side by side.
package devfleet
