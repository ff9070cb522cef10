// Package records keeps the fleet's records: a copy in memory of what the state holds, and
// transactions that change it.
//
// A decision reads rows, and commits what it came to with a Txn whose conditions are those rows. So
// it holds only if none of them has changed meanwhile; else the error is IsLostRace, the copy has
// what is there by now, and the decision is made again.
//
// Invariants:
//
//   - The copy may be behind the state and is never ahead of it. Each record only goes forward, in
//     whatever order changes of it arrive.
//   - What a transaction has changed is in the copy when Commit returns; what others change follows
//     by a watch.
//   - Decoding is strict. A record with a field that this release doesn't know is Corrupt to it,
//     since the next write would drop that field.
//
// A new kind of record is a name, a field of Records, and a line in New.
package records
