// Package model has the disk's protocol as two small models, and a checker that visits every state
// of them. It ships in nothing; its tests run the checker.
//
// Log models writers: attach by compare-and-swap of the head, replay and fence, log objects in
// flight and out of order, acknowledgement, map checkpoint and clean close. It stands for
// attach.go, recover.go, commit.go and mapwrite.go. A request, once sent, may arrive at any later
// time and any number of times, also when its sender is long dead; an answer may never come. A
// writer that takes no more steps is a crashed one.
//
// Pool models collection: a collector with its readings, marks and deletes as steps of their own,
// beside a fork, a read-only attach, a restore, a checkpoint, the removal of checkpoints and a
// writer that moves on. It stands for checkpoint.go, fork.go, change.go, readonly.go and the
// collector.
//
// Properties, in every state: what is acknowledged of an epoch is in whatever a later writer
// recovered (nothing lost, and nothing acknowledged afterwards); two recoveries of an epoch agree
// (a prefix, never a mix); what a head, a checkpoint, a fork or a reader that was told "done"
// refers to is not deleted; and no state in which somebody waits for ever.
//
// Each Bug breaks one rule. The checker must find every one and prints the shortest way there.
package model
