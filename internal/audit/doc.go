// Package audit keeps the record of who has done what: one entry for each change and each exec, in
// a chain of objects in the fleet's store.
//
// A call is written down twice in a spool on the server's own disk: before it begins, and before
// its answer is given. Both are durable when Begin and End return; calls at the same time share the
// flushes. Batches of ended calls become objects, each written once, and each with the hash of the
// one before. The newest hash is kept in the fleet's state, so that a tail that was cut is noticed.
//
// Invariants:
//
//   - A call whose answer was given is in the chain, or in the spool that becomes the chain. One
//     that a crash has interrupted is there, too, and says so.
//   - Each call is in the chain once. An object's content follows from the spool and the chain
//     before it, so that whoever repeats a step after a crash writes the same bytes.
//   - Nothing of the chain is ever changed or removed by Sluice.
package audit
