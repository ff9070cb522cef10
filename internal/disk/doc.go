// Package disk is the virtual disk: a log-structured block device whose truth is a prefix in an
// object store. It stands alone and knows nothing of machines, workers or fleets.
//
// Invariants (numbers as in docs/architecture.md):
//
//  1. One writer: at most one epoch's writes are accepted. The store decides, by compare-and-swap
//     of `head` and by write-once log objects, never a lease.
//  2. A flush that returned nil survives the loss of the host, its cache and its VM.
//  3. After any crash the disk is a prefix of its write order, never a mix.
//  4. An attach with an older generation than the head's is refused, however late it arrives.
package disk
