package table

import (
	"iter"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/state"
)

// chunkMax is the most keys of one chunk; one that outgrows it is split in two.
const chunkMax = 128

// sheet is an immutable, ordered set of keys. A changed sheet shares all chunks with the old one but those
// that changed, so that a snapshot costs nothing and a change costs one chunk and the list of chunks.
type sheet struct {
	chunks [][]state.KV // none empty; keys ascend within and across
	keys   int
}

// newSheet takes keys in ascending order, and keeps the slice.
func newSheet(kvs []state.KV) sheet {
	return sheet{chunks: slices.Collect(slices.Chunk(kvs, chunkMax*3/4)), keys: len(kvs)}
}

// find returns the chunk where key is or would be, the place in it, and whether it is there.
func (s sheet) find(key string) (chunk, at int, found bool) {
	chunk, exact := slices.BinarySearchFunc(s.chunks, key, func(c []state.KV, key string) int {
		return strings.Compare(c[0].Key, key)
	})
	if exact {
		return chunk, 0, true
	}
	if chunk == 0 {
		return 0, 0, false
	}
	chunk--
	at, found = slices.BinarySearchFunc(s.chunks[chunk], key, compareKey)
	return chunk, at, found
}

func compareKey(kv state.KV, key string) int { return strings.Compare(kv.Key, key) }

func (s sheet) get(key string) (state.KV, bool) {
	chunk, at, found := s.find(key)
	if !found {
		return state.KV{}, false
	}
	return s.chunks[chunk][at], true
}

// with returns the sheet after events, in their order.
func (s sheet) with(events []state.Event) sheet {
	next := sheet{chunks: slices.Clone(s.chunks), keys: s.keys}
	for _, ev := range events {
		if ev.Deleted {
			next.remove(ev.Key)
		} else {
			next.set(ev.KV)
		}
	}
	return next
}

// set and remove change a sheet that nobody shares yet; its chunks are shared, and therefore copied.
func (s *sheet) set(kv state.KV) {
	if len(s.chunks) == 0 {
		s.chunks, s.keys = [][]state.KV{{kv}}, 1
		return
	}
	i, at, found := s.find(kv.Key)
	chunk := slices.Clone(s.chunks[i])
	if found {
		chunk[at] = kv
	} else {
		chunk = slices.Insert(chunk, at, kv)
		s.keys++
	}
	s.chunks[i] = chunk
	if half := len(chunk) / 2; len(chunk) > chunkMax {
		s.chunks[i] = chunk[:half:half]
		s.chunks = slices.Insert(s.chunks, i+1, chunk[half:])
	}
}

func (s *sheet) remove(key string) {
	i, at, found := s.find(key)
	if !found {
		return
	}
	s.keys--
	if len(s.chunks[i]) == 1 {
		s.chunks = slices.Delete(s.chunks, i, i+1)
		return
	}
	s.chunks[i] = slices.Delete(slices.Clone(s.chunks[i]), at, at+1)
}

// scan yields the keys under prefix, ascending.
func (s sheet) scan(prefix string) iter.Seq[state.KV] {
	return func(yield func(state.KV) bool) {
		i, at, _ := s.find(prefix)
		for ; i < len(s.chunks); i, at = i+1, 0 {
			for _, kv := range s.chunks[i][at:] {
				if !strings.HasPrefix(kv.Key, prefix) || !yield(kv) {
					return
				}
			}
		}
	}
}
