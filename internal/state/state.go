// Package state is the fleet's small, hot, linearizable state: a narrow interface over etcd, its
// in-memory twin, and typed tables on top of either. It is the only package that imports etcd.
//
// Invariants: revisions only grow; a Txn is all or nothing; a Watch from revision R delivers every later
// change of its prefix exactly once and in order, or ends with an error of kind Conflict when R is
// compacted (list again, then watch from the listing's revision).
package state

import (
	"context"
	"io"
	"time"
)

// KV is one key at one revision.
type KV struct {
	Key         string
	Value       []byte
	CreateRev   int64 // revision that created it
	ModRevision int64 // revision of its last change
}

// Cond is a condition on one key's last change. ModRevision 0 means "the key does not exist".
type Cond struct {
	Key         string
	ModRevision int64
}

// Op writes or deletes one key.
type Op struct {
	Key    string
	Value  []byte // ignored where Delete
	Delete bool
	Lease  LeaseID // 0: none
}

// Txn applies Then if every If holds.
type Txn struct {
	If   []Cond
	Then []Op
}

// Event is one change. Deleted events carry the key only.
type Event struct {
	KV
	Deleted bool
}

// Batch is the changes of one revision or a run of them; Revision is the newest.
type Batch struct {
	Events   []Event
	Revision int64
}

// LeaseID names a lease. Keys bound to a lease vanish when it ends. Leases give liveness, never safety.
type LeaseID int64

// Store is the narrow interface that both etcd and the in-memory twin implement. Safe for concurrent use.
// Error kinds: NotFound (Get), Conflict (a Txn's condition did not hold; a compacted Watch), Unavailable.
type Store interface {
	Get(ctx context.Context, key string) (KV, error)
	// List returns the keys under prefix in byte order, and the revision at which that was the truth.
	List(ctx context.Context, prefix string) ([]KV, int64, error)
	// Commit applies a transaction and returns its revision. A failed condition is an error of kind
	// Conflict. An Unavailable error leaves it open whether the transaction happened.
	Commit(ctx context.Context, txn Txn) (int64, error)
	// Watch calls yield with every batch after revision from, until ctx ends or yield returns false.
	Watch(ctx context.Context, prefix string, from int64, yield func(Batch) bool) error
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	KeepAlive(ctx context.Context, id LeaseID) error
	Revoke(ctx context.Context, id LeaseID) error
	// Snapshot writes a restorable copy of the whole state.
	Snapshot(ctx context.Context, w io.Writer) error
	io.Closer
}
