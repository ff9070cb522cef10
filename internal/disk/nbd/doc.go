// Package nbd serves disks over the NBD protocol (fixed newstyle), on unix sockets and TCP, with
// TLS where that is configured, to QEMU, libnbd, the kernel's client and whoever else speaks it.
//
// Invariants:
//   - A write is answered after the device has taken it, a flush and a forced write (FUA) after the
//     device has flushed. All connections share the device, so that a flush covers what any of them
//     was told is written; that is what multi-conn promises.
//   - Requests of a connection run side by side, and are answered as they finish. Their payloads
//     together stay within Config.ConnMemory, and there are at most Config.MaxConns connections.
//   - An error is never an answer of success: what the device refuses is refused with the errno
//     that fits.
//   - No request is begun after the server was told to end; those under way are answered before it
//     returns.
//   - What a client sends is bounded before it is read: option and request sizes, options per
//     negotiation, the time that a negotiation may take.
package nbd
