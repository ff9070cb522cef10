package blobtest

import (
	"context"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// pattern returns n bytes that differ from place to place and from seed to seed.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ seed
	}
	return p
}

func mustGet(t *testing.T, ctx context.Context, s blob.Store, key string) blob.Object {
	t.Helper()
	o, err := s.Get(ctx, key, blob.All())
	noError(t, err)
	return o
}

func list(t *testing.T, ctx context.Context, s blob.Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	noError(t, s.List(ctx, prefix, after, func(e blob.Entry) bool {
		keys = append(keys, e.Key)
		return true
	}))
	return keys
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, want errs.Kind) {
	t.Helper()
	if got := errs.KindOf(err); got != want {
		t.Fatalf("error of kind %q, want %q: %v", got, want, err)
	}
}
