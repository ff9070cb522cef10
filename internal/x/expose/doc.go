// Package expose is how a process is seen from outside: its registry of metrics, and the handlers
// of /metrics, /healthz and /readyz.
//
// Invariants: there is no global registry. A process makes one and hands it down. Every name
// begins with sluice_ and ends with its unit, but for those of the Go runtime and of the process.
package expose
