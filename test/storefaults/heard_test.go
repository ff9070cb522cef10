package storefaults

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// heard is a store that remembers what went wrong.
type heard struct {
	blob.Store
	mu   sync.Mutex
	said []error
}

func (h *heard) note(err error) error {
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.said = append(h.said, err)
	}
	return err
}

func (h *heard) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = nil
}

func (h *heard) all() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said
}

// soonNames is names, given the time that an answer to a request of the background takes, which
// nobody waited for. One that was given up, as the later of two reads is, says nothing.
func (h *heard) soonNames(what string) bool {
	for deadline := time.Now().Add(20 * time.Second); !h.names(what); time.Sleep(
		10 * time.Millisecond) {
		for _, err := range h.all() {
			if errors.Is(err, context.Canceled) {
				return true
			}
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func (h *heard) names(what string) bool {
	for _, err := range h.all() {
		if strings.Contains(err.Error(), what) && (errs.Is(err, errs.Unavailable) ||
			errs.Is(err, errs.Denied) || errs.Is(err, errs.Exhausted)) {
			return true
		}
	}
	return false
}

func (h *heard) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	o, err := h.Store.Get(ctx, key, r)
	return o, h.note(err)
}

func (h *heard) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	etag, err := h.Store.Put(ctx, key, body)
	return etag, h.note(err)
}

func (h *heard) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	etag, err := h.Store.PutIfAbsent(ctx, key, body)
	return etag, h.note(err)
}

func (h *heard) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	etag, err := h.Store.PutIfMatch(ctx, key, body, match)
	return etag, h.note(err)
}

func (h *heard) Delete(ctx context.Context, key string) error {
	return h.note(h.Store.Delete(ctx, key))
}

func (h *heard) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	return h.note(h.Store.List(ctx, prefix, startAfter, yield))
}
