// Package control is the control plane: it keeps the fleet's records, hears what workers report,
// plans with internal/plan, commits every decision as one transaction on what it relied on, and
// tells workers what to make true.
//
// Invariants (numbers as in docs/architecture.md):
//
//   - Every decision is a transaction whose conditions are the records it was made from. Two
//     servers that act at once are slow, never wrong: one of them loses and decides again.
//   - Nothing is remembered between two transactions but what they wrote. Any server can go on from
//     any of them; what is kept in memory (reports, back-off, contact with workers) only delays.
//   - Assignments are derived, never stored: a pure function of records and reports, which is
//     deriveAssignments. Workers refuse a generation older than they have seen, so that a late or
//     stale one does no harm.
//   - (4) Machine.Generation grows with every placement and every reservation, and is never reused.
//   - (5) A network's lock is taken in the transaction that reserves the target or a later one, and
//     given back in the transaction that ends the move's effect: healthy, undone, or given up.
//   - (7) Capacity is one record per worker, changed only by transactions that compare it.
//   - At most one operation changes a machine's placement: the one named in Machine.Owner.
//
// A machine whose new side never becomes healthy doesn't hold its network's lock for ever: after
// MaxAttempts targets the move is undone onto its source, or, where the source is lost, ended with
// an error; either way the lock is given back and the machine's own record says why it isn't
// running.
package control
