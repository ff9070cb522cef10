// Package simtest simulates whole lives of disks: writers, zombies, forks, restores, readers and a
// collector over a store that answers late, never, twice or with old news. It has no code of its
// own to ship; its tests are the point.
//
// A run is decided by its seed: the steps, and what the store does to the n-th request of a client
// for a key. Time is virtual. Two oracles judge it: every block of every write bears the write's
// own number, so that a disk's content must be that of a prefix of its writes with every
// acknowledged one in it; and a writer that was replaced may have nothing acknowledged beyond what
// its successor found.
//
// The seeded bugs prove that the check can fail: each breaks one rule at the store's seam or in the
// collector, and must be found.
package simtest
