package blobtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
)

func testListOrder(t *testing.T, ctx context.Context, s blob.Store) {
	keys := []string{
		"a-b", "a.b", "a/1", "a/2/x", "a/2/y", "a/2-", "a/20/x", "a0", "disks/m1/head",
		"disks/m1/log/1/1",
		"disks/m1/log/1/2", "disks/m10/head", "disks/m2/head", "z",
	}
	for i, key := range slices.Backward(keys) {
		_, err := s.Put(ctx, key, make([]byte, i))
		noError(t, err)
	}
	slices.Sort(keys)
	prefixes := []string{"", "a", "a/", "a/2", "a/2/", "a-", "disks/m1", "disks/m1/",
		"disks/m1/log/1/", "disks/none/", "zz", "none"}
	afters := append([]string{"", "a", "a/", "a/2", "a/2/", "a/2/x", "a/2/zz", "a0", "b",
		"disks/m1/", "disks/m1/log", "zz"}, keys...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			var want []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := list(t, ctx, s, prefix, after); !slices.Equal(got, want) {
				t.Errorf("list %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
	var first []blob.Entry
	noError(t, s.List(ctx, "disks/", "", func(e blob.Entry) bool {
		first = append(first, e)
		return len(first) < 2
	}))
	if len(first) != 2 || first[0].Key != "disks/m1/head" || first[0].Size != 8 {
		t.Errorf("a listing that was stopped after two: %v", first)
	}
}

func testListMany(t *testing.T, ctx context.Context, s blob.Store, n int) {
	want := make([]string, n)
	g, putCtx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range n {
		want[i] = fmt.Sprintf("many/%03d/%05d", i/1000, i)
		g.Go(func() error {
			_, err := s.PutIfAbsent(putCtx, want[i], []byte("x"))
			return err
		})
	}
	noError(t, g.Wait())
	if got := list(t, ctx, s, "many/", ""); !slices.Equal(got, want) {
		t.Fatalf("listed %d objects of %d, or in another order", len(got), n)
	}
	for _, from := range []int{0, n / 3, n - 2, n - 1} {
		if got := list(t, ctx, s, "many/", want[from]); !slices.Equal(got, want[from+1:]) {
			t.Fatalf("listed %d objects after number %d, want %d", len(got), from, n-from-1)
		}
	}
}
