// Package memblob is an object store in memory, for tests and simulation. It gives all guarantees
// of blob.Store but durability beyond the process, and is as strict as the strictest driver about
// keys.
package memblob

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Store is an object store in memory. It is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	objects map[string]object
	parents map[string]int // how many objects lie under a "directory"
	version uint64
}

type object struct {
	data []byte // never modified after it is stored
	etag blob.ETag
}

var _ blob.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{objects: map[string]object{}, parents: map[string]int{}}
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := check(ctx, key); err != nil {
		return blob.Object{}, err
	}
	s.mu.Lock()
	o, ok := s.objects[key]
	s.mu.Unlock()
	if !ok {
		return blob.Object{}, errs.New(errs.NotFound, "no object %s", key)
	}
	size := int64(len(o.data))
	offset, count, err := r.Resolve(size)
	if err != nil {
		return blob.Object{}, err
	}
	return blob.Object{Data: bytes.Clone(o.data[offset : offset+count]), ETag: o.etag,
		Size: size}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, func(object, bool) error { return nil })
}

// PutIfAbsent implements blob.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, func(_ object, exists bool) error {
		if exists {
			return errs.New(errs.Conflict, "object %s exists already", key)
		}
		return nil
	})
}

// PutIfMatch implements blob.Store.
func (s *Store) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	return s.put(ctx, key, body, func(o object, exists bool) error {
		if !exists {
			return errs.New(errs.NotFound, "no object %s", key)
		}
		if o.etag != match {
			return errs.New(errs.Conflict, "object %s has changed", key)
		}
		return nil
	})
}

func (s *Store) put(ctx context.Context, key string, body []byte,
	condition func(object, bool) error) (blob.ETag, error) {
	if err := check(ctx, key); err != nil {
		return "", err
	}
	data := bytes.Clone(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, exists := s.objects[key]
	if err := condition(old, exists); err != nil {
		return "", err
	}
	if !exists {
		if err := s.enterLocked(key); err != nil {
			return "", err
		}
	}
	s.version++
	o := object{data: data, etag: blob.ETag(strconv.FormatUint(s.version, 16))}
	s.objects[key] = o
	return o.etag, nil
}

// enterLocked notes a new key, unless a directory could not hold it beside the others.
func (s *Store) enterLocked(key string) error {
	if s.parents[key] > 0 {
		return errs.New(errs.Invalid, "object %s is a directory of other objects", key)
	}
	for dir := range parentsOf(key) {
		if _, ok := s.objects[dir]; ok {
			return errs.New(errs.Invalid, "object %s would lie under the object %s", key, dir)
		}
	}
	for dir := range parentsOf(key) {
		s.parents[dir]++
	}
	return nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; !ok {
		return nil
	}
	delete(s.objects, key)
	for dir := range parentsOf(key) {
		if s.parents[dir]--; s.parents[dir] == 0 {
			delete(s.parents, dir)
		}
	}
	return nil
}

// List implements blob.Store. It lists the keys as they were when it was called.
func (s *Store) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "list %q", prefix)
	}
	s.mu.Lock()
	var found []blob.Entry
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) && key > startAfter {
			found = append(found, blob.Entry{Key: key, Size: int64(len(o.data))})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b blob.Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, e := range found {
		if !yield(e) {
			return nil
		}
	}
	return nil
}

// Close implements blob.Store. The objects stay.
func (s *Store) Close() error { return nil }

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "object %s", key)
	}
	return blob.CheckKey(key)
}

// parentsOf yields every directory above key.
func parentsOf(key string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i, c := range key {
			if c == '/' && !yield(key[:i]) {
				return
			}
		}
	}
}
