// Package identity is how the parts of a fleet know each other: by certificates of the fleet's own
// authority, over TLS 1.3.
//
// A certificate has one name, a URI like sluice://FLEET/worker/w9?term=1700000000000. Who checks a
// peer checks that name, and no host name or address. The term tells certificates that a
// worker got by one join token from those that it got by a later one; a renewal keeps it.
//
// Invariants:
//
//   - A worker's private key never leaves its host, and the authority's never leaves the server's.
//   - A chain to the fleet's authority is found first, and clocks are looked at after that. So what
//     is told of a clock is told of a certificate that is the fleet's.
//   - What is written to a file is written whole, with mode 0600 where it holds a key.
package identity
