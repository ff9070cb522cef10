// Package inner is the container in which user code runs.
//
// The OCI runtime makes it while the VM is still empty, with only its PID 1 in it, and a root that
// contains only that program. When a machine is bound, Enter replaces that root by the machine's
// disk, with an idmapped mount. It also gives the container its name and address. So the tens of
// milliseconds that an OCI runtime takes aren't part of a move's pause.
//
// Invariants: the container has a user namespace of its own, and no capability outside it; on the
// disk, its root's files belong to uid 0 all the same; nothing of the VM's root namespace is
// mounted in it; its only way out is its link, on which it can neither reach the VM nor send from
// an address not its own. Kill returns when no process of it is left.
package inner
