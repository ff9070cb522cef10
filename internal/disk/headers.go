package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// segmentHeader is what a reader needs of a segment's header.
type segmentHeader struct {
	length int64
	frames []format.Frame
	runs   []format.Run
	key    *format.ObjectKey // of the frames; nil: they are in the clear
}

// entries is what a header counts for among those that are kept: about its size in entries of a
// frame table.
func (h *segmentHeader) entries() int {
	if h.key != nil {
		return len(h.frames) + len(h.runs) + 64
	}
	return len(h.frames) + len(h.runs) + 4
}

// header returns a segment's header, and the whole object where it was small enough to be read at
// once.
func (f *frames) header(
	ctx context.Context, seg *format.SegmentEntry, key string,
) (*segmentHeader, []byte, error) {
	hk := f.key(seg, headerFrame)
	f.mu.Lock()
	if h := f.headers[hk]; h != nil {
		f.mu.Unlock()
		return h, nil, nil
	}
	if fl := f.flights[hk]; fl != nil {
		f.mu.Unlock()
		select {
		case <-fl.done:
			return fl.header, fl.data, fl.err
		case <-ctx.Done():
			return nil, nil, errs.Wrap(errs.Unavailable, ctx.Err(), "wait for a header")
		}
	}
	fl := &frameFlight{done: make(chan struct{})}
	f.flights[hk] = fl
	f.mu.Unlock()

	fl.header, fl.data, fl.err = f.readHeader(ctx, seg, key)
	f.mu.Lock()
	delete(f.flights, hk)
	if fl.err == nil {
		f.keepHeaderLocked(hk, fl.header)
	}
	f.mu.Unlock()
	close(fl.done)
	return fl.header, fl.data, fl.err
}

func (f *frames) readHeader(
	ctx context.Context, seg *format.SegmentEntry, key string,
) (*segmentHeader, []byte, error) {
	n := int64(seg.HeaderLen)
	if seg.Size <= wholeObject {
		n = int64(seg.Size)
	}
	obj, err := f.store.GetFixed(ctx, key, blob.Range{Offset: 0, Length: n})
	if err != nil {
		return nil, nil, notMissing(err)
	}
	h, err := format.DecodeLogHeader(obj.Data)
	if err != nil {
		return nil, nil, err
	}
	if h.Epoch != seg.Epoch || h.Seq != seg.Seq || h.Kind != seg.Kind ||
		h.Len() != int(seg.HeaderLen) ||
		h.Blocks != seg.Blocks || obj.Size != int64(seg.Size) {
		return nil, nil, errs.New(errs.Corrupt, "header doesn't match the segment table")
	}
	sealed, err := f.keys.Open(f.lineage[seg.Lineage].UID, h)
	if err != nil {
		return nil, nil, err
	}
	return &segmentHeader{length: int64(h.Len()), frames: h.Frames, runs: h.Runs,
		key: sealed}, obj.Data, nil
}

// keepHeader remembers the header of a segment that we wrote.
func (f *frames) keepHeader(
	seg *format.SegmentEntry, fr []format.Frame, runs []format.Run, key *format.ObjectKey,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keepHeaderLocked(f.key(seg, headerFrame),
		&segmentHeader{length: int64(seg.HeaderLen), frames: fr, runs: runs, key: key})
}

// keepHeaderLocked keeps a header, and drops any others when there are too many.
func (f *frames) keepHeaderLocked(k cache.Key, h *segmentHeader) {
	f.headers[k] = h
	f.entries += h.entries()
	for old, oh := range f.headers {
		if f.entries <= maxHeaderRefs {
			return
		}
		if old != k {
			delete(f.headers, old)
			f.entries -= oh.entries()
		}
	}
}
