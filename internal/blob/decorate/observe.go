package decorate

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Observe calls begin ahead of each request to a store, and what that returned with its outcome.
// Both are called concurrently, and must not wait. closed is called when the store is.
func Observe(s blob.Store, begin func(op Op, key string) (end func(error)),
	closed func()) blob.Store {
	return &observed{store: s, begin: begin, closed: closed}
}

type observed struct {
	store  blob.Store
	begin  func(op Op, key string) func(error)
	closed func()
}

func (o *observed) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	end := o.begin(OpGet, key)
	obj, err := o.store.Get(ctx, key, r)
	end(err)
	return obj, err
}

func (o *observed) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	end := o.begin(OpPut, key)
	tag, err := o.store.Put(ctx, key, body)
	end(err)
	return tag, err
}

func (o *observed) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	end := o.begin(OpPutIfAbsent, key)
	tag, err := o.store.PutIfAbsent(ctx, key, body)
	end(err)
	return tag, err
}

func (o *observed) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	end := o.begin(OpPutIfMatch, key)
	tag, err := o.store.PutIfMatch(ctx, key, body, match)
	end(err)
	return tag, err
}

func (o *observed) Delete(ctx context.Context, key string) error {
	end := o.begin(OpDelete, key)
	err := o.store.Delete(ctx, key)
	end(err)
	return err
}

func (o *observed) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	end := o.begin(OpList, prefix)
	err := o.store.List(ctx, prefix, startAfter, yield)
	end(err)
	return err
}

func (o *observed) Close() error {
	o.closed()
	return o.store.Close()
}
