// Package inner is the container in which user code runs.
//
// It is made by the OCI runtime while the VM is still empty, with nothing in it but its own PID 1
// and a root that holds only that. When a machine is bound, Enter puts the machine's disk in the
// place of that root, by an idmapped mount, and gives the container its name and address. So what
// an OCI runtime needs tens of milliseconds for isn't part of a move's pause.
//
// Invariants: the container has a user namespace of its own, and no capability outside it; on the
// disk, its root's files belong to uid 0 all the same; nothing of the VM's root namespace is
// mounted in it; its only way out is its link, on which it can neither reach the VM nor send from
// an address not its own. Kill returns when no process of it is left.
package inner
