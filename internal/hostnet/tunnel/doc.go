// Package tunnel encrypts and authenticates what machines on different workers send to each other:
// a WireGuard interface of the worker's host, with one peer for each other worker.
//
// Invariants:
//
//   - A packet comes out of the tunnel only if its source is a machine of the worker whose key it
//     was encrypted with: WireGuard drops the others (its cryptokey routing).
//   - The interface outlives the worker daemon, as VMs do. The kernel has it, where its WireGuard
//     is there. Elsewhere a process of its own has it, which runs wireguard-go and ends with it.
//   - A private key never leaves the host. Peers learn public keys from the control plane.
//   - A changed set of peers touches only those that differ: sessions with others go on.
package tunnel
