package records

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Row is a record as a decision read it. The value is shared: clone the maps and slices in it
// before you change them.
type Row[T any] struct {
	Val T
	Rev int64 // of the record's last change; 0: there is no such record
	key string
}

// Kind is all records of one kind. Safe for concurrent use.
type Kind[ID ~string, T any] struct {
	mu   *sync.RWMutex // of the Records
	dir  string
	only ID             // if set, there is one record of this kind, and this is its id
	rows map[ID]*Row[T] // each as it was made: a change is another row
	// index, if set, is told of each change, under the lock; nil is no record.
	index func(id string, old, now *T)
}

// kind is what Records does with records of whatever type. All but dirName need the lock.
type kind interface {
	dirName() string
	applyLocked(id string, ev state.Event) (took bool, err error)
	idsLocked() []string
	revLocked(id string) int64
}

// New returns the row of a record that must not exist yet.
func (k *Kind[ID, T]) New(id ID) Row[T] { return Row[T]{key: k.dir + string(id)} }

// Get returns a record; false, with New's row, if there is none.
func (k *Kind[ID, T]) Get(id ID) (Row[T], bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.getLocked(id)
}

func (k *Kind[ID, T]) getLocked(id ID) (Row[T], bool) {
	if r, ok := k.rows[id]; ok {
		return *r, true
	}
	return k.New(id), false
}

// All returns every record of the kind, ordered by id.
func (k *Kind[ID, T]) All() []Row[T] {
	k.mu.RLock()
	defer k.mu.RUnlock()
	list := make([]Row[T], 0, len(k.rows))
	for _, id := range slices.Sorted(maps.Keys(k.rows)) {
		list = append(list, *k.rows[id])
	}
	return list
}

// IDs returns the ids of all records of the kind, ordered.
func (k *Kind[ID, T]) IDs() []ID {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Sorted(maps.Keys(k.rows))
}

// Len returns how many records of the kind there are.
func (k *Kind[ID, T]) Len() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.rows)
}

func (k *Kind[ID, T]) dirName() string { return k.dir }

// applyLocked takes a change in, unless the copy has a newer one of that record.
func (k *Kind[ID, T]) applyLocked(id string, ev state.Event) (bool, error) {
	if k.only != "" && k.only != ID(id) || k.revLocked(id) >= ev.ModRevision {
		return false, nil
	}
	var was, now *T
	if old, had := k.rows[ID(id)]; had {
		was = &old.Val
	} else if ev.Deleted {
		return false, nil
	}
	if ev.Deleted {
		delete(k.rows, ID(id))
	} else {
		next := &Row[T]{key: ev.Key, Rev: ev.ModRevision}
		if err := decode(ev.KV, &next.Val); err != nil {
			return false, err
		}
		k.rows[ID(id)] = next
		now = &next.Val
	}
	if k.index != nil {
		k.index(id, was, now)
	}
	return true, nil
}

func (k *Kind[ID, T]) idsLocked() []string {
	ids := make([]string, 0, len(k.rows))
	for id := range k.rows {
		ids = append(ids, string(id))
	}
	return ids
}

func (k *Kind[ID, T]) revLocked(id string) int64 {
	if r, ok := k.rows[ID(id)]; ok {
		return r.Rev
	}
	return 0
}

// decode is strict: the next write of a record would drop what this build doesn't know of it.
func decode(kv state.KV, into any) error {
	d := json.NewDecoder(bytes.NewReader(kv.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errs.Wrap(errs.Corrupt, err, "decode record %s at revision %d", kv.Key,
			kv.ModRevision).
			WithRemedy("run the release that wrote it, or restore the state from a snapshot")
	}
	return nil
}

// splitKey returns a key's directory, everything up to and with the second slash, and the id after
// it.
func splitKey(key string) (dir, id string) {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return "", key
	}
	i := strings.IndexByte(rest, '/')
	return root + rest[:i+1], rest[i+1:]
}
