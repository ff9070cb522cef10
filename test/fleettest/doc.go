// Package fleettest brings up real fleets for tests: real processes, network namespaces, store and
// machines, through internal/devfleet and the public client. Whatever happens in a test, its fleet
// is removed afterwards, and the test fails if anything of it is left on the machine.
package fleettest
