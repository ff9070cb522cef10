package decorate

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Intercept calls before ahead of each request to a store, and makes the request only if that
// returns nil. It is called concurrently, and may wait, as a store does that doesn't answer; it
// must return when ctx ends.
func Intercept(s blob.Store, before func(ctx context.Context, op Op, key string) error) blob.Store {
	return &intercept{store: s, before: before}
}

type intercept struct {
	store  blob.Store
	before func(ctx context.Context, op Op, key string) error
}

func (i *intercept) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := i.before(ctx, OpGet, key); err != nil {
		return blob.Object{}, err
	}
	return i.store.Get(ctx, key, r)
}

func (i *intercept) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if err := i.before(ctx, OpPut, key); err != nil {
		return "", err
	}
	return i.store.Put(ctx, key, body)
}

func (i *intercept) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if err := i.before(ctx, OpPutIfAbsent, key); err != nil {
		return "", err
	}
	return i.store.PutIfAbsent(ctx, key, body)
}

func (i *intercept) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	if err := i.before(ctx, OpPutIfMatch, key); err != nil {
		return "", err
	}
	return i.store.PutIfMatch(ctx, key, body, match)
}

func (i *intercept) Delete(ctx context.Context, key string) error {
	if err := i.before(ctx, OpDelete, key); err != nil {
		return err
	}
	return i.store.Delete(ctx, key)
}

func (i *intercept) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	if err := i.before(ctx, OpList, prefix); err != nil {
		return err
	}
	return i.store.List(ctx, prefix, startAfter, yield)
}

func (i *intercept) Close() error { return i.store.Close() }
