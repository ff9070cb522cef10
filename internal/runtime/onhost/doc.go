// Package onhost is the part of a VM on its host that all drivers share: cgroups with its limits,
// the worker's end of its link, a console file, a record, and processes that can't be confused with
// later ones of the same pid. VMs starts and adopts a driver's VMs; a VM is one of them. A driver
// adds what differs (Kind).
//
// Invariants: everything has the VM's id in its name, so it can be found without any record. Each
// function may be called twice, and after its object has gone.
package onhost
