//go:build bench

package frontend

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	arenaSize = 10 << 30
	largeBody = 64 << 10
)

// arena is a store in memory that was touched before: it takes an object for the price of a copy.
// memblob's memory is new with each object, and the page faults of that cost several times what the
// engine does with the same bytes. Objects that are large are written once, which is what the disk
// does with them.
type arena struct {
	*memblob.Store // what is small, or changes

	mu   sync.Mutex
	mem  []byte // what is free of it
	kept map[string][]byte
}

func newArena() (*arena, error) {
	mem, err := unix.Mmap(-1, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("%d bytes for the store: %w", arenaSize, err)
	}
	if err := unix.Madvise(mem, unix.MADV_HUGEPAGE); err != nil {
		return nil, fmt.Errorf("ask for huge pages: %w", err)
	}
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	return &arena{Store: memblob.New(), mem: mem, kept: map[string][]byte{}}, nil
}

// PutIfAbsent implements blob.Store.
func (a *arena) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if len(body) < largeBody {
		return a.Store.PutIfAbsent(ctx, key, body)
	}
	a.mu.Lock()
	if a.kept[key] != nil || len(a.mem) < len(body) {
		a.mu.Unlock()
		return "", errs.New(errs.Conflict, "object %s is there, or %d bytes are too many",
			key, len(body))
	}
	own := a.mem[:len(body):len(body)]
	a.mem = a.mem[len(body):]
	a.mu.Unlock()
	copy(own, body)
	a.mu.Lock()
	a.kept[key] = own
	a.mu.Unlock()
	return "1", nil
}

// Get implements blob.Store.
func (a *arena) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	a.mu.Lock()
	data, ok := a.kept[key]
	a.mu.Unlock()
	if !ok {
		return a.Store.Get(ctx, key, r)
	}
	offset, count, err := r.Resolve(int64(len(data)))
	if err != nil {
		return blob.Object{}, err
	}
	return blob.Object{Data: bytes.Clone(data[offset : offset+count]), ETag: "1",
		Size: int64(len(data))}, nil
}
