// Package decorate holds what wraps a blob.Store: retries, counters, injected faults and latency.
// Each is a blob.Store itself and keeps its guarantees, apart from what it is there to break.
package decorate

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// RetryConfig bounds Retry.
type RetryConfig struct {
	Attempts int           // in all, at least 1
	Pause    time.Duration // before the second attempt; doubles each time, with jitter
	MaxPause time.Duration
}

// DefaultRetry rides out about ten seconds of a store that can't be reached.
func DefaultRetry() RetryConfig {
	return RetryConfig{Attempts: 8, Pause: 50 * time.Millisecond, MaxPause: 4 * time.Second}
}

// Retry repeats what came back Unavailable, where repeating can't be mistaken: Get, Put, Delete and
// List. PutIfAbsent and PutIfMatch are passed on once, because a repeated one may lose against its
// own first attempt; only the caller can tell by what it wrote.
func Retry(s blob.Store, cfg RetryConfig) blob.Store { return &retry{Store: s, cfg: cfg} }

type retry struct {
	blob.Store
	cfg RetryConfig
}

func (r *retry) do(ctx context.Context, call func() error) error {
	wait := backoff.New(r.cfg.Pause, r.cfg.MaxPause)
	for attempt := 1; ; attempt++ {
		err := call()
		if attempt >= r.cfg.Attempts || !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return err
		}
		after, _ := blob.ThrottledFor(err)
		if backoff.Sleep(ctx, after+wait.Next()) != nil {
			return err
		}
	}
}

func (r *retry) Get(ctx context.Context, key string, rg blob.Range) (o blob.Object, err error) {
	err = r.do(ctx, func() error { o, err = r.Store.Get(ctx, key, rg); return err })
	return o, err
}

func (r *retry) Put(ctx context.Context, key string, body []byte) (etag blob.ETag, err error) {
	err = r.do(ctx, func() error { etag, err = r.Store.Put(ctx, key, body); return err })
	return etag, err
}

func (r *retry) Delete(ctx context.Context, key string) error {
	return r.do(ctx, func() error { return r.Store.Delete(ctx, key) })
}

// List goes on after the last key that it has yielded, so none comes twice.
func (r *retry) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	return r.do(ctx, func() error {
		return r.Store.List(ctx, prefix, startAfter, func(e blob.Entry) bool {
			startAfter = e.Key
			return yield(e)
		})
	})
}
