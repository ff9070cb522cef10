package disk

import (
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/store"
)

// Stats counts since attach. Bytes are of object bodies.
type Stats struct {
	Gets      uint64 `json:"gets"`
	GetBytes  uint64 `json:"get_bytes"`
	Puts      uint64 `json:"puts"` // write-once objects
	PutBytes  uint64 `json:"put_bytes"`
	HeadSwaps uint64 `json:"head_swaps"`
	Lists     uint64 `json:"lists"`
	Retries   uint64 `json:"retries"` // attempts that the store did not answer
	// of them, those that it answered by asking for fewer requests
	Throttled   uint64 `json:"throttled"`
	Uploads     int    `json:"uploads"` // log objects that may be uploaded at a time now
	LogObjects  uint64 `json:"log_objects"`
	MapWrites   uint64 `json:"map_checkpoints"`
	Packed      uint64 `json:"packed_segments"` // written by compaction
	PackedBytes uint64 `json:"packed_bytes"`    // of those
	Replayed    uint64 `json:"replayed_objects"`
	Flushes     uint64 `json:"flushes"`
	Reads       uint64 `json:"reads"` // requests of the device's user, as are writes
	Writes      uint64 `json:"writes"`
	WriteBytes  uint64 `json:"write_bytes"` // by the device's user
	ReadBytes   uint64 `json:"read_bytes"`
	FrameHits   uint64 `json:"frame_hits"` // in memory or in the cache
	FrameMisses uint64 `json:"frame_misses"`
	// reads and log objects that went past a cache device that was behind
	CacheSkips uint64 `json:"cache_skips"`
	ReadAheads uint64 `json:"readahead_frames"`
	// reads asked twice because the store was late; counted in gets too
	Hedges    uint64 `json:"hedged_gets"`
	HedgeWins uint64 `json:"hedge_wins"`     // of them, answered by the second request first
	Proven    uint64 `json:"proven_objects"` // acknowledged by the store, and then shown
	// Lost counts objects that the store acknowledged and did not have, and that were written
	// again. One is too many.
	Lost uint64 `json:"lost_objects"`
	// of objects that were acknowledged, and are kept in memory until they are shown
	UnprovenBytes int64 `json:"unproven_bytes"`
	DirtyBytes    int64 `json:"dirty_bytes"` // of writes, in memory
	MapBytes      int64 `json:"map_bytes"`   // memory, about

	LogStore string `json:"log_store,omitempty"` // its URL, if the log is in a second store
	// of the dirty ones: those that the log store has and the disk's own store lacks
	StagedBytes int64 `json:"staged_bytes,omitempty"`

	Stall *Stall `json:"stall,omitempty"` // nil: the store does what it is asked for

	FlushTimes Histogram `json:"flush_times"` // of the user's flushes
	// Acknowledges says what a flush waits for: AcknowledgedByStore, or AcknowledgedByJournal in
	// mode bounded with a journal that works.
	Acknowledges string `json:"acknowledges,omitempty"`
	// age of the oldest write that the store lacks
	OldestWrite time.Duration  `json:"oldest_write_ns,omitempty"`
	Journal     *journal.Stats `json:"journal,omitempty"`

	// of the whole cache device, with other disks' use of it
	Cache *cache.Stats `json:"cache,omitempty"`
}

// What acknowledges a flush.
const (
	AcknowledgedByStore   = "store"
	AcknowledgedByJournal = "journal"
)

// counters are what a disk counts beside what its store does.
type counters struct {
	reads, writes, readBytes, writeBytes, flushes  atomic.Uint64
	flushTimes                                     latency
	logObjects, mapWrites, replayed, proven        atomic.Uint64
	packed, packedBytes                            atomic.Uint64
	frameHits, frameMisses, readAheads, cacheSkips atomic.Uint64
}

func (c *counters) stats(n store.Counts) Stats {
	return Stats{
		Gets: n.Gets, GetBytes: n.GetBytes, Puts: n.Puts, PutBytes: n.PutBytes,
		HeadSwaps: n.Swaps, Lists: n.Lists, Retries: n.Retries, Throttled: n.Throttled,
		Hedges: n.Hedges, HedgeWins: n.HedgeWins, Lost: n.Lost,

		Reads: c.reads.Load(), ReadBytes: c.readBytes.Load(),
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		Flushes: c.flushes.Load(), FlushTimes: c.flushTimes.load(),
		LogObjects: c.logObjects.Load(), MapWrites: c.mapWrites.Load(),
		Replayed: c.replayed.Load(), Proven: c.proven.Load(),
		Packed: c.packed.Load(), PackedBytes: c.packedBytes.Load(),
		FrameHits: c.frameHits.Load(), FrameMisses: c.frameMisses.Load(),
		ReadAheads: c.readAheads.Load(), CacheSkips: c.cacheSkips.Load(),
	}
}
