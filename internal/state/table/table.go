// Package table gives the fleet's state types: tables of JSON records over a state.Store, transactions
// built of typed changes, and a mirror of the state in memory.
//
// Invariants: a record is only ever replaced against the revision at which it was read, so that a write can't
// undo one that it hasn't seen; all changes of a Batch happen or none. Decoding is strict: a record that says
// more than this build understands is Corrupt rather than silently trimmed by the next write of it.
package table

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// modifyAttempts bounds how often Modify meets a conflict before it gives up.
	modifyAttempts = 20
	// modifyPause is the unit of the pause after a conflict; it grows with the attempts, with jitter.
	modifyPause = 2 * time.Millisecond
)

// Versioned is a record as it was at one revision. Treat the value as read-only: what a Mirror hands out
// may be shared.
type Versioned[T any] struct {
	Key         string // whole key in the store
	ID          string // key below the table's prefix
	ModRevision int64
	Value       T
}

// Table is the records of one type, under one prefix of a store. It holds no state of its own and is safe
// for concurrent use.
type Table[T any] struct {
	store  state.Store
	prefix string
}

// New returns the table under prefix, to which a slash is added where it has none at its end.
func New[T any](store state.Store, prefix string) *Table[T] {
	if !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	return &Table[T]{store: store, prefix: prefix}
}

// On returns the same table on another store; a leader's, say, whose commits are fenced.
func (t *Table[T]) On(store state.Store) *Table[T] {
	return &Table[T]{store: store, prefix: t.prefix}
}

// Prefix returns the prefix of all keys of the table, with its slash.
func (t *Table[T]) Prefix() string { return t.prefix }

// Key returns the whole key of a record.
func (t *Table[T]) Key(id string) string { return t.prefix + id }

// Get reads one record. Error kinds: NotFound, Corrupt, Unavailable.
func (t *Table[T]) Get(ctx context.Context, id string) (Versioned[T], error) {
	kv, err := t.store.Get(ctx, t.Key(id))
	if err != nil {
		return Versioned[T]{}, err
	}
	return t.decode(kv)
}

// List reads all records, ordered by id, and the revision at which they are the truth. Where some can't be
// decoded it returns the others, and an error of kind Corrupt that names the keys of those.
func (t *Table[T]) List(ctx context.Context) ([]Versioned[T], int64, error) {
	kvs, rev, err := t.store.List(ctx, t.prefix)
	if err != nil {
		return nil, 0, err
	}
	records := make([]Versioned[T], 0, len(kvs))
	var bad []error
	for _, kv := range kvs {
		records, bad = t.collect(records, bad, kv)
	}
	return records, rev, errors.Join(bad...)
}

// GetFrom is Get from a mirror's view. Error kinds: NotFound, Corrupt.
func (t *Table[T]) GetFrom(view *View, id string) (Versioned[T], error) {
	kv, ok := view.Get(t.Key(id))
	if !ok {
		return Versioned[T]{}, errs.New(errs.NotFound, "no key %q in the state", t.Key(id))
	}
	return t.decode(kv)
}

// ListFrom is List from a mirror's view, with the same meaning of its error.
func (t *Table[T]) ListFrom(view *View) ([]Versioned[T], error) {
	var records []Versioned[T]
	var bad []error
	for kv := range view.Scan(t.prefix) {
		records, bad = t.collect(records, bad, kv)
	}
	return records, errors.Join(bad...)
}

func (t *Table[T]) collect(records []Versioned[T], bad []error, kv state.KV) ([]Versioned[T], []error) {
	record, err := t.decode(kv)
	if err != nil {
		return records, append(bad, err)
	}
	return append(records, record), bad
}

func (t *Table[T]) decode(kv state.KV) (Versioned[T], error) {
	value, err := decode[T](kv)
	if err != nil {
		return Versioned[T]{}, err
	}
	return Versioned[T]{
		Key: kv.Key, ID: strings.TrimPrefix(kv.Key, t.prefix), ModRevision: kv.ModRevision, Value: value,
	}, nil
}

// Modify reads a record, has edit make a new value of it, and writes that back against the revision read;
// after a conflict it does so again, a bounded number of times, and then returns the conflict. edit may
// therefore be called several times. Where edit changes nothing, nothing is written. An error of edit is
// returned as it is. After an error of kind Unavailable the change may have happened, so edit should
// describe a state to reach, not a step to take.
func (t *Table[T]) Modify(ctx context.Context, id string, edit func(T) (T, error)) (Versioned[T], error) {
	for attempt := 1; ; attempt++ {
		record, err := t.modifyOnce(ctx, id, edit)
		if !errors.Is(err, errConflict) || attempt == modifyAttempts {
			return record, err
		}
		if err := pause(ctx, time.Duration(attempt)*modifyPause); err != nil {
			return Versioned[T]{}, errs.Wrap(errs.Unavailable, err, "modify %q", t.Key(id))
		}
	}
}

// errConflict marks a conflict of the commit itself, as against one that edit answers with.
var errConflict = errs.New(errs.Conflict, "the record keeps changing")

func (t *Table[T]) modifyOnce(ctx context.Context, id string, edit func(T) (T, error)) (Versioned[T], error) {
	kv, err := t.store.Get(ctx, t.Key(id))
	if err != nil {
		return Versioned[T]{}, err
	}
	record, err := t.decode(kv)
	if err != nil {
		return Versioned[T]{}, err
	}
	value, err := edit(record.Value)
	if err != nil {
		return Versioned[T]{}, err
	}
	encoded, err := encode(record.Key, value)
	if err != nil {
		return Versioned[T]{}, err
	}
	next := Versioned[T]{Key: record.Key, ID: id, ModRevision: record.ModRevision, Value: value}
	if bytes.Equal(encoded, kv.Value) {
		return next, nil
	}
	next.ModRevision, err = t.store.Commit(ctx, state.Txn{
		If:   []state.Cond{{Key: record.Key, ModRevision: record.ModRevision}},
		Then: []state.Op{{Key: record.Key, Value: encoded}},
	})
	if errs.Is(err, errs.Conflict) {
		return Versioned[T]{}, errs.Wrap(errs.Conflict, errConflict, "modify %q", record.Key)
	}
	if err != nil {
		return Versioned[T]{}, err
	}
	return next, nil
}

// pause waits for d, give or take a half.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
