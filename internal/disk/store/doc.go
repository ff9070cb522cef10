// Package store is an object store as a disk uses it. Every request is retried while the store is
// Unavailable, and every doubt about a write is settled by asking. A Client notices a store that
// has stalled, and slows down for one that asks for that. It asks twice where a read is late, and
// checks that what was acknowledged is there.
//
// It knows the disk's keys and its head, and nothing else of a disk.
package store
