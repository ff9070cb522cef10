// Package blobtest is the conformance suite of blob.Store. Every driver and every decorator passes
// it.
package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Target is a driver under test.
type Target struct {
	// Open returns a new empty store, and has the test clean it up.
	Open func(t *testing.T) blob.Store
	// ListSize is how many objects the listing test makes; 0 means 2,500, which is more than two
	// pages of S3.
	ListSize int
}

// Run runs the whole suite as subtests of t.
func Run(t *testing.T, target Target) {
	if target.ListSize == 0 {
		target.ListSize = 2500
	}
	for _, c := range []struct {
		name string
		test func(t *testing.T, ctx context.Context, s blob.Store)
	}{
		{"GetOfMissing", testGetOfMissing},
		{"PutAndGet", testPutAndGet},
		{"Ranges", testRanges},
		{"RangesOfEmpty", testRangesOfEmpty},
		{"PutIfAbsent", testPutIfAbsent},
		{"PutIfMatch", testPutIfMatch},
		{"ETags", testETags},
		{"Delete", testDelete},
		{"BadKeys", testBadKeys},
		{"OddKeys", testOddKeys},
		{"ListOrder", testListOrder},
		{"BodiesAreNotKept", testBodiesAreNotKept},
		{"Cancelled", testCancelled},
		{"RacePutIfAbsent", testRacePutIfAbsent},
		{"RacePutIfMatch", testRacePutIfMatch},
		{"Counter", testCounter},
		{"NoHalfObject", testNoHalfObject},
		{"DeleteAmidPuts", testDeleteAmidPuts},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, deadline(t), target.Open(t)) })
	}
	t.Run("ListMany", func(t *testing.T) {
		testListMany(t, deadline(t), target.Open(t),
			target.ListSize)
	})
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func testGetOfMissing(t *testing.T, ctx context.Context, s blob.Store) {
	for _, r := range []blob.Range{blob.All(), {Offset: 3, Length: 4}, {Offset: -1}, {Length: 0}} {
		_, err := s.Get(ctx, "disks/none/head", r)
		wantKind(t, err, errs.NotFound)
	}
	_, err := s.PutIfMatch(ctx, "disks/none/head", []byte("x"), "0123456789abcdef0123456789abcdef")
	wantKind(t, err, errs.NotFound)
}

func testPutAndGet(t *testing.T, ctx context.Context, s blob.Store) {
	for _, size := range []int{0, 1, 4096, 65_537, 3 << 20} {
		key := fmt.Sprintf("put/%d", size)
		body := pattern(size, byte(size))
		etag, err := s.Put(ctx, key, body)
		noError(t, err)
		got := mustGet(t, ctx, s, key)
		if !bytes.Equal(got.Data, body) || got.ETag != etag || got.Size != int64(size) {
			t.Fatalf("%s: %d bytes with etag %q, size %d; put %d bytes with etag %q", key,
				len(got.Data), got.ETag, got.Size, size, etag)
		}
		_, err = s.Put(ctx, key, []byte("another"))
		noError(t, err)
		if got := mustGet(t, ctx, s, key); string(got.Data) != "another" {
			t.Fatalf("%s after a second put: %q", key, got.Data)
		}
	}
}

func testRanges(t *testing.T, ctx context.Context, s blob.Store) {
	body := pattern(10_000, 7)
	etag, err := s.PutIfAbsent(ctx, "ranges", body)
	noError(t, err)
	for _, c := range []struct {
		r    blob.Range
		want []byte
	}{
		{blob.All(), body},
		{blob.Range{Offset: 0, Length: 1}, body[:1]},
		{blob.Range{Offset: 4000, Length: 100}, body[4000:4100]},
		{blob.Range{Offset: 4000, Length: -1}, body[4000:]},
		{blob.Range{Offset: 9999, Length: 1}, body[9999:]},
		{blob.Range{Offset: 9990, Length: 1000}, body[9990:]},
		{blob.Range{Offset: 0, Length: 1 << 40}, body},
		{blob.Range{Offset: -1}, body[9999:]},
		{blob.Range{Offset: -17, Length: 3}, body[9983:]},
		{blob.Range{Offset: -10_000}, body},
		{blob.Range{Offset: -50_000, Length: -1}, body},
		{blob.Range{Offset: 5, Length: 0}, nil},
	} {
		got, err := s.Get(ctx, "ranges", c.r)
		noError(t, err)
		if !bytes.Equal(got.Data, c.want) || got.Size != 10_000 || got.ETag != etag {
			t.Errorf("range %+v: %d bytes, size %d, etag %q; want %d bytes, etag %q", c.r,
				len(got.Data), got.Size, got.ETag, len(c.want), etag)
		}
	}
	for _, r := range []blob.Range{{Offset: 10_000, Length: 1}, {Offset: 10_001, Length: -1},
		{Offset: 1 << 40, Length: 5}, {Offset: 10_000}} {
		_, err := s.Get(ctx, "ranges", r)
		wantKind(t, err, errs.Invalid)
	}
}

func testRangesOfEmpty(t *testing.T, ctx context.Context, s blob.Store) {
	_, err := s.Put(ctx, "empty", nil)
	noError(t, err)
	for _, r := range []blob.Range{blob.All(), {Offset: 0, Length: 10}, {Offset: -5}, {}} {
		got, err := s.Get(ctx, "empty", r)
		noError(t, err)
		if len(got.Data) != 0 || got.Size != 0 || got.ETag == "" {
			t.Errorf("range %+v of an empty object: %d bytes, size %d, etag %q", r, len(got.Data),
				got.Size, got.ETag)
		}
	}
	_, err = s.Get(ctx, "empty", blob.Range{Offset: 1, Length: 1})
	wantKind(t, err, errs.Invalid)
}

func testPutIfAbsent(t *testing.T, ctx context.Context, s blob.Store) {
	etag, err := s.PutIfAbsent(ctx, "log/1/1", []byte("first"))
	noError(t, err)
	_, err = s.PutIfAbsent(ctx, "log/1/1", []byte("second"))
	wantKind(t, err, errs.Conflict)
	if got := mustGet(t, ctx, s, "log/1/1"); string(got.Data) != "first" || got.ETag != etag {
		t.Fatalf("a refused write changed the object to %q", got.Data)
	}
	noError(t, s.Delete(ctx, "log/1/1"))
	_, err = s.PutIfAbsent(ctx, "log/1/1", []byte("third"))
	noError(t, err)
}

func testPutIfMatch(t *testing.T, ctx context.Context, s blob.Store) {
	first, err := s.PutIfAbsent(ctx, "head", []byte("one"))
	noError(t, err)
	second, err := s.PutIfMatch(ctx, "head", []byte("two"), first)
	noError(t, err)
	_, err = s.PutIfMatch(ctx, "head", []byte("three"), first)
	wantKind(t, err, errs.Conflict)
	if got := mustGet(t, ctx, s, "head"); string(got.Data) != "two" || got.ETag != second {
		t.Fatalf("a stale write changed the object to %q", got.Data)
	}
	noError(t, s.Delete(ctx, "head"))
	_, err = s.PutIfMatch(ctx, "head", []byte("four"), second)
	wantKind(t, err, errs.NotFound)
}

// testETags writes many different bodies under one key, by all three ways and with a delete
// between; no ETag may come twice.
func testETags(t *testing.T, ctx context.Context, s blob.Store) {
	seen := map[blob.ETag]int{}
	var last blob.ETag
	for i := range 40 {
		var etag blob.ETag
		var err error
		body := fmt.Appendf(nil, "%04d", i)
		switch i % 4 {
		case 0:
			noError(t, s.Delete(ctx, "k"))
			etag, err = s.PutIfAbsent(ctx, "k", body)
		case 1, 2:
			etag, err = s.PutIfMatch(ctx, "k", body, last)
		case 3:
			etag, err = s.Put(ctx, "k", body)
		}
		noError(t, err)
		if earlier, ok := seen[etag]; ok || etag == "" {
			t.Fatalf("write %d has the etag %q of write %d", i, etag, earlier)
		}
		seen[etag], last = i, etag
	}
}

func testDelete(t *testing.T, ctx context.Context, s blob.Store) {
	noError(t, s.Delete(ctx, "never/was"))
	_, err := s.Put(ctx, "a/b/c/d", []byte("x"))
	noError(t, err)
	noError(t, s.Delete(ctx, "a/b"))
	noError(t, s.Delete(ctx, "a/b/c/d/e"))
	mustGet(t, ctx, s, "a/b/c/d")
	noError(t, s.Delete(ctx, "a/b/c/d"))
	noError(t, s.Delete(ctx, "a/b/c/d"))
	_, err = s.Get(ctx, "a/b/c/d", blob.All())
	wantKind(t, err, errs.NotFound)
	if got := list(t, ctx, s, "", ""); len(got) != 0 {
		t.Fatalf("list after delete: %v", got)
	}
	_, err = s.Put(ctx, "a", []byte("what was a directory may become an object"))
	noError(t, err)
}

func testBadKeys(t *testing.T, ctx context.Context, s blob.Store) {
	long := string(bytes.Repeat([]byte("x"), 256))
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.",
		"a\x00b", "\xff", long, "d/" + long} {
		_, err := s.Get(ctx, key, blob.All())
		wantKind(t, err, errs.Invalid)
		_, err = s.Put(ctx, key, nil)
		wantKind(t, err, errs.Invalid)
		_, err = s.PutIfAbsent(ctx, key, nil)
		wantKind(t, err, errs.Invalid)
		_, err = s.PutIfMatch(ctx, key, nil, "x")
		wantKind(t, err, errs.Invalid)
		wantKind(t, s.Delete(ctx, key), errs.Invalid)
	}
}

func testOddKeys(t *testing.T, ctx context.Context, s blob.Store) {
	keys := []string{"...", "a b", "a%2Fb", "a%b", "c?d=e#f", "d+e", "ü/ß", `back\slash`, "q\"uote",
		"semi;colon", "log/0000000000000001/00000000000000ff"}
	for _, key := range keys {
		_, err := s.PutIfAbsent(ctx, key, []byte(key))
		noError(t, err)
	}
	for _, key := range keys {
		if got := mustGet(t, ctx, s, key); string(got.Data) != key {
			t.Errorf("object %q holds %q", key, got.Data)
		}
	}
	if got := list(t, ctx, s, "", ""); len(got) != len(keys) {
		t.Errorf("listed %q of %q", got, keys)
	}
}

func testBodiesAreNotKept(t *testing.T, ctx context.Context, s blob.Store) {
	body := []byte("mine")
	_, err := s.Put(ctx, "k", body)
	noError(t, err)
	copy(body, "over")
	got := mustGet(t, ctx, s, "k")
	if string(got.Data) != "mine" {
		t.Fatalf("the store kept the caller's slice: %q", got.Data)
	}
	copy(got.Data, "over")
	if again := mustGet(t, ctx, s, "k"); string(again.Data) != "mine" {
		t.Fatalf("the store gave out its own slice: %q", again.Data)
	}
}

func testCancelled(t *testing.T, ctx context.Context, s blob.Store) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Get(ctx, "k", blob.All())
	wantKind(t, err, errs.Unavailable)
	_, err = s.PutIfAbsent(ctx, "k", nil)
	wantKind(t, err, errs.Unavailable)
	wantKind(t, s.List(ctx, "", "", func(blob.Entry) bool { return true }), errs.Unavailable)
}
