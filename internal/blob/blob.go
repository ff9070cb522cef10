// Package blob is the object store seam: the few operations that Sluice needs of a store, with
// exactly the guarantees that it builds on.
//
// Guarantees that every driver gives and the conformance suite (blobtest) checks:
//   - An object is seen whole or not at all: no reader ever sees half a Put.
//   - When a mutation returns nil, it is durable and visible to every later Get and List.
//   - PutIfAbsent and PutIfMatch are atomic: of any number of racers exactly one wins.
//   - A mutation that returns an error of kind Unavailable may or may not have happened, and may
//     still happen later. Callers ask (Get and compare), they never assume.
//   - ETags are opaque, and differ between any two different bodies ever stored under one key. They
//     say nothing about integrity.
//
// Nothing in Sluice needs a conditional Delete, because some S3 servers ignore its condition.
package blob

import (
	"context"
	"io"
)

// ETag identifies one version of an object. It is opaque.
type ETag string

// Object is a Get's answer. The caller owns Data.
type Object struct {
	Data []byte
	ETag ETag
	Size int64 // of the whole object, also for a ranged Get
}

// Entry is one object in a listing.
type Entry struct {
	Key  string
	Size int64
}

// Range asks for Length bytes from Offset; Length < 0 means to the end. A negative Offset asks for
// the last -Offset bytes. A range that starts past the end is Invalid; one that runs over the end
// is cut (compare len(Data) with what was asked).
type Range struct {
	Offset int64
	Length int64
}

// All is the range of a whole object.
func All() Range { return Range{Offset: 0, Length: -1} }

// Store is an object store, or a prefix of one. Keys are slash-separated relative paths without "."
// or ".." elements. All methods are safe for concurrent use. Bodies passed in are not modified or
// kept.
//
// Error kinds: NotFound (Get, PutIfMatch on a missing key), Conflict (a condition did not hold),
// Unavailable (the store can't be reached, timed out, throttled, answered 5xx, or something else
// answered in its place), Denied (it refuses until a person changes something: credentials, policy,
// a bucket that is missing), Invalid (a bad key or range), Exhausted (no space).
type Store interface {
	// Get reads an object or a range of it.
	Get(ctx context.Context, key string, r Range) (Object, error)
	// Put writes an object unconditionally.
	Put(ctx context.Context, key string, body []byte) (ETag, error)
	// PutIfAbsent writes an object if there is none under key; else Conflict.
	PutIfAbsent(ctx context.Context, key string, body []byte) (ETag, error)
	// PutIfMatch replaces the version of an object that has the given ETag; else Conflict.
	PutIfMatch(ctx context.Context, key string, body []byte, match ETag) (ETag, error)
	// Delete removes an object. A missing one is no error.
	Delete(ctx context.Context, key string) error
	// List calls yield for each object whose key starts with prefix, in ascending byte order of
	// keys, beginning after the key startAfter ("" for all), until yield returns false.
	List(ctx context.Context, prefix, startAfter string, yield func(Entry) bool) error
	io.Closer
}
