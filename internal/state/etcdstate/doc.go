// Package etcdstate is the fleet's state on etcd: a single member embedded in the server process,
// or endpoints of an etcd of yours.
//
// Invariants: an acknowledged Commit has been fsynced by a majority. One process at most has a data
// directory open, and a second one is told so at once instead of hanging on a file lock. The
// embedded member opens no port unless ClientURL asks for one. A restored state never hands out a
// revision a second time.
package etcdstate
