// Package fsck checks a stored disk against its format, docs/formats/disk.md, without attaching it.
//
// Invariants:
//   - It only reads. What it finds broken stays as it is.
//   - It knows the format's codecs and keys, and nothing of the engine: what the engine has come to
//     believe is not what it checks against.
//   - A thing is damage when a reader of the disk, of a checkpoint or of the log to replay could
//     come upon it. What nobody can come upon is unreachable, and counted.
//   - What the store can't tell, because it is away or denies it, is an error and not damage.
//
// Run it on a disk that nobody has attached. On one that is being written it says nothing false
// about damage, but what the writer is just writing is counted as in flight.
package fsck
