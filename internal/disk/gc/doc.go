// Package gc is the collector of a pool: it deletes the objects of disks that nothing can reach any
// more.
//
// One Collect reads the whole pool and makes a mark: what heads, checkpoints, forks and pins do not
// reach. A mark is kept in the pool. What an earlier mark, older than the grace, and the present
// one both found is deleted. So the collector has no state of its own, can die anywhere, and any
// number of them can run at once.
//
// Invariants:
//
//   - Only what two marks found unreachable is deleted. A mark reads heads, then checkpoints, then
//     references and pins, then heads again. So what moves from one to another is seen on its way
//     (internal/disk/model, decision 0008).
//   - Nothing that a writer may be about to refer to is garbage. Of a disk's own epoch that is only
//     what its head says is superseded, and of a later one nothing. Of its log it is nothing that a
//     replay would look for.
//   - Fences are kept as long as their disk has a head. They keep a writer of an old epoch from
//     having anything acknowledged.
//   - Pins end by observation: one is dead when a mark of twice its lease ago shows it as it is
//     now. No clocks of two hosts are compared.
//   - Of a disk with an object that makes no sense everything stays, and of all that it descends
//     from. That is a checkpoint, a reference, a pin or a map that is damaged, or of a format that
//     this release doesn't know (doubt.go). The rest of the pool is collected. Such a head, or a
//     store that fails, stops the collector before it changes anything. A key that it doesn't know
//     stays.
//   - Of a log store it looks only at what a head of this pool has bound to it. Only what that
//     head's log position has passed is garbage. Fences and the identity stay.
//   - No key of an encrypted disk is needed.
//
// What it trusts: that a path isn't used for a new disk while objects of an old one there are being
// deleted. It looks at the head immediately before, but deletes have no condition. Disks of
// machines never share a path.
package gc
