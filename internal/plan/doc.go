// Package plan decides: where a machine goes, which moves a drain starts now, which workers are
// lost and what to do about it. It is pure: no I/O, no clock, no goroutine; the same input gives
// the same plan, and executors may run it as often as they like.
//
// Invariants (numbers as in docs/architecture.md):
//
//	(5) no plan starts a move in a network whose lock is taken, by its own earlier moves too
//	(6) no target is cordoned, draining, drained, suspect or down, whichever operation asks
//	(7) a move is only planned together with a target that has the capacity; what doesn't fit
//	    stays where it is, and is explained as a fleet.Blocker
//	(8) a drain is done only when nothing on its workers is left: no placement, reservation, VM or
//	    move
//
// What plans read is an Index, which whoever has the records tells of each change of one, and a
// Look at what is known beside them. Nothing in a plan changes either.
//
// A plan is advice about a view that may be old. What it proposes is committed by transactions that
// compare what the plan relied on, and a transaction that fails leads to a new plan.
package plan
