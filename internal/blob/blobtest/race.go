package blobtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	racers = 16
	rounds = 10
)

func testRacePutIfAbsent(t *testing.T, ctx context.Context, s blob.Store) {
	for round := range rounds {
		key := fmt.Sprintf("race/%d/fence", round)
		race(t, func(i int) error {
			_, err := s.PutIfAbsent(ctx, key, fmt.Appendf(nil, "racer %d", i))
			return err
		}, func() string { return string(mustGet(t, ctx, s, key).Data) })
	}
}

func testRacePutIfMatch(t *testing.T, ctx context.Context, s blob.Store) {
	for round := range rounds {
		key := fmt.Sprintf("race/%d/head", round)
		base, err := s.PutIfAbsent(ctx, key, []byte("base"))
		noError(t, err)
		race(t, func(i int) error {
			_, err := s.PutIfMatch(ctx, key, fmt.Appendf(nil, "racer %d", i), base)
			return err
		}, func() string { return string(mustGet(t, ctx, s, key).Data) })
	}
}

// race lets all racers act at once. Exactly one may win, all others get Conflict, and the winner's
// body is what is found afterwards.
func race(t *testing.T, act func(i int) error, read func() string) {
	t.Helper()
	results := make([]error, racers)
	start := make(chan struct{})
	var g errgroup.Group
	for i := range racers {
		g.Go(func() error {
			<-start
			results[i] = act(i)
			return nil
		})
	}
	close(start)
	_ = g.Wait()
	winner := -1
	for i, err := range results {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("racers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		default:
			wantKind(t, err, errs.Conflict)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	if got, want := read(), fmt.Sprintf("racer %d", winner); got != want {
		t.Fatalf("found %q, but the winner wrote %q", got, want)
	}
}

// testCounter increments one number by compare-and-swap from several goroutines; none may be lost.
func testCounter(t *testing.T, ctx context.Context, s blob.Store) {
	const each, workers = 10, 4
	_, err := s.Put(ctx, "counter", binary.BigEndian.AppendUint64(nil, 0))
	noError(t, err)
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			for done := 0; done < each; {
				o, err := s.Get(ctx, "counter", blob.All())
				if err != nil {
					return err
				}
				next := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(o.Data)+1)
				switch _, err = s.PutIfMatch(ctx, "counter", next, o.ETag); {
				case err == nil:
					done++
				case !errs.Is(err, errs.Conflict):
					return err
				}
			}
			return nil
		})
	}
	noError(t, g.Wait())
	o, err := s.Get(t.Context(), "counter", blob.All())
	noError(t, err)
	if got := binary.BigEndian.Uint64(o.Data); got != each*workers {
		t.Fatalf("counter is %d after %d increments", got, each*workers)
	}
}

// testNoHalfObject reads while a writer replaces; every body is uniform, and its ETag is always the
// same.
func testNoHalfObject(t *testing.T, ctx context.Context, s blob.Store) {
	const size, versions = 256 << 10, 30
	_, err := s.Put(ctx, "whole", bytes.Repeat([]byte{0}, size))
	noError(t, err)
	stop := make(chan struct{})
	var g errgroup.Group
	seen := make([]map[blob.ETag]byte, 3)
	for i := range seen {
		seen[i] = map[blob.ETag]byte{}
		g.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				o, err := s.Get(ctx, "whole", blob.All())
				if err != nil {
					return err
				}
				if len(o.Data) != size || !bytes.Equal(o.Data, bytes.Repeat(o.Data[:1], size)) {
					return fmt.Errorf("half an object: %d bytes", len(o.Data))
				}
				if b, ok := seen[i][o.ETag]; ok && b != o.Data[0] {
					return fmt.Errorf("etag %q on the bodies %d and %d", o.ETag, b, o.Data[0])
				}
				seen[i][o.ETag] = o.Data[0]
			}
		})
	}
	for v := range versions {
		if _, err = s.Put(ctx, "whole", bytes.Repeat([]byte{byte(v + 1)}, size)); err != nil {
			break
		}
	}
	close(stop)
	noError(t, g.Wait())
	noError(t, err)
}

// testDeleteAmidPuts deletes the only object of a directory while others put theirs into it: what
// was put stays, though a driver may remove directories that are empty.
func testDeleteAmidPuts(t *testing.T, ctx context.Context, s blob.Store) {
	var g errgroup.Group
	for w := range 4 {
		g.Go(func() error {
			for i := range 25 {
				key := fmt.Sprintf("x/y/z/%d", w)
				if err := insist(ctx, s, key, fmt.Appendf(nil, "%d", i)); err != nil {
					return err
				}
				o, err := s.Get(ctx, key, blob.All())
				if err != nil {
					return err
				}
				if string(o.Data) != fmt.Sprint(i) {
					return fmt.Errorf("object %s is %q in round %d", key, o.Data, i)
				}
				if err := s.Delete(ctx, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	noError(t, g.Wait())
}

// insist puts a new object as every caller must: what came back Unavailable is asked about and
// repeated. (versitygw answers 409 when it loses a race with its own removal of an empty
// directory.)
func insist(ctx context.Context, s blob.Store, key string, body []byte) error {
	for {
		_, err := s.PutIfAbsent(ctx, key, body)
		if !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return err
		}
		if o, err := s.Get(ctx, key, blob.All()); err == nil && bytes.Equal(o.Data, body) {
			return nil
		}
	}
}
