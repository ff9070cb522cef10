// Package seal keeps small secrets safe where others may read: sealed under the fleet's key, they
// are in the fleet's state, its snapshots and its backups, and say nothing there.
//
// Invariants:
//   - A sealed value opens at its own place only. One that was moved or renamed is refused.
//   - A sealed value names its key, so that keys can be changed one after the other.
//   - No secret and no key is in an error, a log line, an argument or the environment.
package seal
