// Package state is the fleet's small, hot, linearizable state: a narrow interface over etcd, and
// its in-memory twin. It is the only package that imports etcd.
//
// Invariants: revisions only grow; a Txn is all or nothing; a Watch from revision R delivers every
// later change of its prefix exactly once and in order, or ends with an error of kind Conflict when
// R is compacted (list again, then watch from the listing's revision).
package state

import (
	"context"
	"io"
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
}

// Txn applies Then if every If holds. Neither list may be longer than MaxTxnOps, and Then may name
// a key only once; see Check. A Txn that changes nothing (no Then, or deletes of absent keys)
// succeeds with the present revision.
type Txn struct {
	If   []Cond
	Then []Op
}

// Event is one change. Deleted events carry the key and the revision that deleted it, and no value.
type Event struct {
	KV
	Deleted bool
}

// Batch is the changes of one revision or a run of them; Revision is the newest.
type Batch struct {
	Events   []Event
	Revision int64
}

// Store is the narrow interface that both etcd and the in-memory twin implement. Safe for
// concurrent use. Error kinds: NotFound (Get), Conflict (a Txn's condition
// did not hold; a compacted Watch), Invalid (a Txn that Check refuses), Exhausted (the store's
// quota is used up), Unavailable (also for an ended ctx, whose error is then in the chain, and
// after Close). Byte slices are the caller's on return, and copied on entry.
type Store interface {
	Get(ctx context.Context, key string) (KV, error)
	// List returns the keys under prefix in byte order, and the revision at which that was the
	// truth.
	List(ctx context.Context, prefix string) ([]KV, int64, error)
	// Commit applies a transaction and returns its revision. A failed condition is an error of kind
	// Conflict. An Unavailable error leaves it open whether the transaction happened.
	Commit(ctx context.Context, txn Txn) (int64, error)
	// Watch calls yield, one call at a time, with every batch after revision from. It returns nil
	// once yield returned false, and an error otherwise: Unavailable when ctx ends or the
	// connection breaks (watch again from the last batch's revision), Conflict when from is
	// compacted (list again). A yield that blocks holds up this watch alone, and makes its changes
	// pile up in memory.
	Watch(ctx context.Context, prefix string, from int64, yield func(Batch) bool) error
	// Snapshot writes a restorable copy of the whole state. The format is the implementation's own.
	Snapshot(ctx context.Context, w io.Writer) error
	io.Closer
}
