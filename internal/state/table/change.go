package table

import (
	"context"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Change is one condition, one write, or a write under a condition: a part of a transaction. An error in
// making it, such as a value that can't be encoded, is returned by the Commit it becomes part of.
type Change struct {
	cond *state.Cond
	op   *state.Op
	err  error
}

// WithLease returns the change with its write bound to a lease.
func (c Change) WithLease(id state.LeaseID) Change {
	if c.op != nil {
		op := *c.op
		op.Lease = id
		c.op = &op
	}
	return c
}

// Require is a bare condition, on any key: a leader's fence, say.
func Require(cond state.Cond) Change { return Change{cond: &cond} }

// Create writes a record that must not exist yet.
func (t *Table[T]) Create(id string, value T) Change {
	return t.write(id, value, &state.Cond{Key: t.Key(id)})
}

// Update replaces a record that must still be as it was read.
func (t *Table[T]) Update(old Versioned[T], value T) Change {
	return t.write(old.ID, value, &state.Cond{Key: t.Key(old.ID), ModRevision: old.ModRevision})
}

// Put writes a record whatever was there. It is for records that one party alone writes.
func (t *Table[T]) Put(id string, value T) Change { return t.write(id, value, nil) }

// Delete removes a record that must still be as it was read.
func (t *Table[T]) Delete(old Versioned[T]) Change {
	return Change{
		cond: &state.Cond{Key: t.Key(old.ID), ModRevision: old.ModRevision},
		op:   &state.Op{Key: t.Key(old.ID), Delete: true},
		err:  t.checkID(old.ID),
	}
}

// Expect requires that a record is still as it was read, and leaves it alone.
func (t *Table[T]) Expect(old Versioned[T]) Change {
	return Change{cond: &state.Cond{Key: t.Key(old.ID), ModRevision: old.ModRevision}, err: t.checkID(old.ID)}
}

// ExpectAbsent requires that there is no such record.
func (t *Table[T]) ExpectAbsent(id string) Change {
	return Change{cond: &state.Cond{Key: t.Key(id)}, err: t.checkID(id)}
}

func (t *Table[T]) write(id string, value T, cond *state.Cond) Change {
	if err := t.checkID(id); err != nil {
		return Change{err: err}
	}
	b, err := encode(t.Key(id), value)
	return Change{cond: cond, op: &state.Op{Key: t.Key(id), Value: b}, err: err}
}

func (t *Table[T]) checkID(id string) error {
	if id == "" {
		return errs.New(errs.Invalid, "a record of %q without an id", t.prefix)
	}
	return nil
}

// Batch collects changes, of any tables of one store, into one transaction. It is not safe for concurrent use.
// The zero value is empty and ready.
type Batch struct{ changes []Change }

// Add adds changes and returns the batch.
func (b *Batch) Add(changes ...Change) *Batch {
	b.changes = append(b.changes, changes...)
	return b
}

// Len returns the number of changes.
func (b *Batch) Len() int { return len(b.changes) }

// Txn returns the transaction. Error kinds: Invalid for a change that couldn't be made, a key that is
// written twice, or a batch too long; Conflict where two changes expect one key at different revisions, so
// that they can't both hold.
func (b *Batch) Txn() (state.Txn, error) {
	var txn state.Txn
	expected := map[string]int64{}
	for _, c := range b.changes {
		if c.err != nil {
			return state.Txn{}, c.err
		}
		if c.cond != nil {
			rev, seen := expected[c.cond.Key]
			if seen && rev != c.cond.ModRevision {
				return state.Txn{}, errs.New(errs.Conflict, "key %q was read at revision %d and again at %d",
					c.cond.Key, rev, c.cond.ModRevision)
			}
			if !seen {
				expected[c.cond.Key] = c.cond.ModRevision
				txn.If = append(txn.If, *c.cond)
			}
		}
		if c.op != nil {
			txn.Then = append(txn.Then, *c.op)
		}
	}
	return txn, state.Check(txn)
}

// Commit applies the batch and returns its revision, with the errors of Txn and of state.Store's Commit.
func (b *Batch) Commit(ctx context.Context, store state.Store) (int64, error) {
	txn, err := b.Txn()
	if err != nil {
		return 0, err
	}
	return store.Commit(ctx, txn)
}

// Commit applies changes as one transaction; see Batch.
func Commit(ctx context.Context, store state.Store, changes ...Change) (int64, error) {
	return new(Batch).Add(changes...).Commit(ctx, store)
}
