// Package machine is platformd: the process in a VM's root namespace that makes the VM a machine,
// releases it, and answers calls for it in between.
//
// Invariants: a VM is bound once, to one machine at one generation; repeating a bind or a release
// has no further effect, and a different one is a Conflict. A request is on the VM's tmpfs before
// it is acknowledged, and every step can be repeated. So a platformd that was killed goes on where
// it was, and restarts nothing. A disk that was fenced is never written again, and one that
// was released cleanly is mounted nowhere.
package machine
