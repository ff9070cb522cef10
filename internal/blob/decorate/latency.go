package decorate

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Latency makes every request to a store take at least d longer, as a store far away does.
func Latency(s blob.Store, d time.Duration) blob.Store {
	return LatencyFunc(s, func() time.Duration { return d })
}

// LatencyFunc makes each request to a store take longer by what d returns for it. d is called
// concurrently.
func LatencyFunc(s blob.Store,
	d func() time.Duration) blob.Store {
	return &latency{store: s, d: d}
}

type latency struct {
	store blob.Store
	d     func() time.Duration
}

func (l *latency) wait(ctx context.Context) error {
	if backoff.Sleep(ctx, l.d()) != nil {
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for the store")
	}
	return nil
}

func (l *latency) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := l.wait(ctx); err != nil {
		return blob.Object{}, err
	}
	return l.store.Get(ctx, key, r)
}

func (l *latency) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if err := l.wait(ctx); err != nil {
		return "", err
	}
	return l.store.Put(ctx, key, body)
}

func (l *latency) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if err := l.wait(ctx); err != nil {
		return "", err
	}
	return l.store.PutIfAbsent(ctx, key, body)
}

func (l *latency) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	if err := l.wait(ctx); err != nil {
		return "", err
	}
	return l.store.PutIfMatch(ctx, key, body, match)
}

func (l *latency) Delete(ctx context.Context, key string) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.store.Delete(ctx, key)
}

func (l *latency) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.store.List(ctx, prefix, startAfter, yield)
}

func (l *latency) Close() error { return l.store.Close() }
