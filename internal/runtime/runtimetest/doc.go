// Package runtimetest is the conformance suite of runtime.Driver. A driver that passes keeps the VM
// boundary: what the suite's guest, a program running as init, sees and can do is what package
// runtime names.
//
// Invariants checked besides each case's own: after every case, nothing of its VMs is left on the
// host.
package runtimetest
