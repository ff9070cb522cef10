// Package gateway is the store gateway: one listener per VM, on that VM's link alone, through which
// the VM reaches its disk and nothing else. The gateway holds the store's credentials; the VM holds
// a token.
//
// Invariants:
//
//   - A token gives access to one disk at one generation, for reading or for writing. It works
//     only on its own VM's listener. Once it is revoked it stops working at once, also for calls
//     under way.
//   - Mutations go below the disk's own path only: its head by compare-and-swap, keeping its
//     identity and carrying exactly the token's generation; every other object once, never
//     replaced, never deleted. The owner's document and the record of forks are not the VM's to
//     write.
//   - Reads go below the disk's own path, and to the log, segment, map and checkpoint objects of
//     its ancestors. The worker itself reads from the store which these are.
//   - Every byte between a VM and the store passes here and is counted.
//
// The rules are enforced by a wrapper of the store, not by the protocol in front of it. So no form
// of a request can evade them.
package gateway
