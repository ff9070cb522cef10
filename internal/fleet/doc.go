// Package fleet is Sluice's domain: identities, states, records and the interfaces by which
// siblings meet. It imports nothing of Sluice but internal/x.
//
// Invariants stated by its types:
//
//   - Generations only grow; every Assignment carries one, and a worker refuses an older one than
//     it has seen.
//   - A Machine's ID, Name, App, Network, Config and Disk never change by a move; Placement does.
//   - At most one operation owns a machine at a time (Machine.Owner, set by compare-and-swap).
//
// Records (Machine, Worker, Move, …) are what the fleet's state holds; reports (WorkerReport) are
// what workers observe, and are never stored as truth.
package fleet
