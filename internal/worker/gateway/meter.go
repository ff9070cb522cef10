package gateway

import (
	"context"
	"sync/atomic"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Counts is what one VM asked of the store since its gateway was opened.
type Counts struct {
	Reads        int64 `json:"reads"` // requests: Get and List
	Writes       int64 `json:"writes"`
	BytesRead    int64 `json:"bytes_read"`
	BytesWritten int64 `json:"bytes_written"`
	Refused      int64 `json:"refused"` // by the gateway; the store was not asked
}

// meter is a blob.Store that counts what reaches the store. A write counts when it is sent, whatever
// became of it.
type meter struct {
	blob.Store
	reads, writes, bytesRead, bytesWritten atomic.Int64
}

func (m *meter) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	m.reads.Add(1)
	obj, err := m.Store.Get(ctx, key, r)
	m.bytesRead.Add(int64(len(obj.Data)))
	return obj, err
}

func (m *meter) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	m.wrote(body)
	return m.Store.PutIfAbsent(ctx, key, body)
}

func (m *meter) PutIfMatch(ctx context.Context, key string, body []byte, match blob.ETag) (blob.ETag, error) {
	m.wrote(body)
	return m.Store.PutIfMatch(ctx, key, body, match)
}

func (m *meter) List(ctx context.Context, prefix, startAfter string, yield func(blob.Entry) bool) error {
	m.reads.Add(1)
	return m.Store.List(ctx, prefix, startAfter, yield)
}

func (m *meter) wrote(body []byte) {
	m.writes.Add(1)
	m.bytesWritten.Add(int64(len(body)))
}

func (m *meter) counts() Counts {
	return Counts{
		Reads: m.reads.Load(), Writes: m.writes.Load(),
		BytesRead: m.bytesRead.Load(), BytesWritten: m.bytesWritten.Load(),
	}
}
