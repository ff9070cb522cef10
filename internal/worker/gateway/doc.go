// Package gateway is the store gateway: one listener per VM, on that VM's link alone, through which
// the VM reaches its disk and nothing else. The gateway holds the store's credentials; the VM holds
// a token.
//
// Invariants:
//
//   - A token lets at one disk, under one generation, for reading or for writing. It works through
//     its own VM's listener only, and stops working the moment it is revoked, also for calls under
//     way.
//   - Mutations go below the disk's own path only: its head by compare-and-swap, keeping its
//     identity and carrying exactly the token's generation; every other object once, never
//     replaced, never deleted. The owner's document and the record of forks are not the VM's to
//     write.
//   - Reads go below the disk's own path, and to the log, segment, map and checkpoint objects of
//     the disks in its lineage as the worker itself read it from the store.
//   - Every byte between a VM and the store passes here and is counted.
//
// The rules are enforced around the store, not in the protocol in front of it, so that no way of
// putting a request can get around them.
package gateway
