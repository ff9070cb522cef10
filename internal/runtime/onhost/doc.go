// Package onhost is what a VM has on its host, whatever it is made of: cgroups with its limits, the
// worker's end of its link, a console file, a record of it, and processes that are told from later
// ones with the same pid. VMs starts and adopts a driver's VMs, and VM is the life of one; a driver
// adds what a VM is made of (Kind).
//
// Invariants: everything bears the VM's id in its name, so that it is found again without any
// record; each function may be called twice, and after its object has gone.
package onhost
