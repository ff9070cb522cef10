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
	// Of requests to the store, and the log store: see store.Counts.
	Gets      uint64 `json:"gets"`
	GetBytes  uint64 `json:"get_bytes"`
	Puts      uint64 `json:"puts"`
	PutBytes  uint64 `json:"put_bytes"`
	HeadSwaps uint64 `json:"head_swaps"`
	Lists     uint64 `json:"lists"`
	Retries   uint64 `json:"retries"`
	Throttled uint64 `json:"throttled"`
	Hedges    uint64 `json:"hedged_gets"`
	HedgeWins uint64 `json:"hedge_wins"`
	Lost      uint64 `json:"lost_objects"` // one is too many
	Uploads   int    `json:"uploads"`      // log objects that may be uploaded at a time now

	// Of requests of the device's user.
	Reads      uint64    `json:"reads"`
	ReadBytes  uint64    `json:"read_bytes"`
	Writes     uint64    `json:"writes"`
	WriteBytes uint64    `json:"write_bytes"`
	Flushes    uint64    `json:"flushes"`
	FlushTimes Histogram `json:"flush_times"`
	// FlushTime is the sum of the times. FlushWaits says what flushes waited for in them.
	FlushTime  time.Duration   `json:"flush_time_ns"`
	FlushWaits map[Wait]Waited `json:"flush_waits"`

	// Of objects written and read.
	LogObjects  uint64 `json:"log_objects"`
	MapWrites   uint64 `json:"map_checkpoints"`
	Packed      uint64 `json:"packed_segments"` // by compaction
	PackedBytes uint64 `json:"packed_bytes"`    // of those
	Proven      uint64 `json:"proven_objects"`  // acknowledged by the store, and then shown
	Replayed    uint64 `json:"replayed_objects"`

	// Of frames read.
	FrameHits   uint64 `json:"frame_hits"` // in memory or in the cache
	FrameMisses uint64 `json:"frame_misses"`
	ReadAheads  uint64 `json:"readahead_frames"`
	CacheSkips  uint64 `json:"cache_skips"` // reads and log objects that a slow cache did not get

	// Of memory. UnprovenBytes are of objects that the store has acknowledged and not shown.
	// StagedBytes are those dirty ones that the log store has and the disk's own store lacks.
	UnprovenBytes int64 `json:"unproven_bytes"`
	DirtyBytes    int64 `json:"dirty_bytes"`
	StagedBytes   int64 `json:"staged_bytes,omitempty"`
	MapBytes      int64 `json:"map_bytes"` // about

	LogStore string `json:"log_store,omitempty"` // its URL, if there is one
	Stall    *Stall `json:"stall,omitempty"`     // nil: the store does what it is asked for

	// Acknowledges says what a flush waits for: AcknowledgedByStore, or AcknowledgedByJournal in
	// mode bounded with a journal that works.
	Acknowledges string `json:"acknowledges,omitempty"`
	// OldestWrite is the age of the oldest write that the store lacks.
	OldestWrite time.Duration  `json:"oldest_write_ns,omitempty"`
	Journal     *journal.Stats `json:"journal,omitempty"`
	Cache       *cache.Stats   `json:"cache,omitempty"` // with other disks' use of the device
}

// What acknowledges a flush.
const (
	AcknowledgedByStore   = "store"
	AcknowledgedByJournal = "journal"
)

// counters are what a disk counts beside what its store does.
type counters struct {
	reads, writes, readBytes, writeBytes, flushes  atomic.Uint64
	flushTimes                                     waited
	flushWaits                                     flushWaits
	logObjects, mapWrites, replayed, proven        atomic.Uint64
	packed, packedBytes                            atomic.Uint64
	frameHits, frameMisses, readAheads, cacheSkips atomic.Uint64
}

func (c *counters) stats(n store.Counts) Stats {
	flushes := c.flushTimes.load()
	return Stats{
		Gets: n.Gets, GetBytes: n.GetBytes, Puts: n.Puts, PutBytes: n.PutBytes,
		HeadSwaps: n.Swaps, Lists: n.Lists, Retries: n.Retries, Throttled: n.Throttled,
		Hedges: n.Hedges, HedgeWins: n.HedgeWins, Lost: n.Lost,

		Reads: c.reads.Load(), ReadBytes: c.readBytes.Load(),
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		Flushes: c.flushes.Load(), FlushTimes: flushes.Times, FlushTime: flushes.Sum,
		FlushWaits: c.flushWaits.load(),
		LogObjects: c.logObjects.Load(), MapWrites: c.mapWrites.Load(),
		Replayed: c.replayed.Load(), Proven: c.proven.Load(),
		Packed: c.packed.Load(), PackedBytes: c.packedBytes.Load(),
		FrameHits: c.frameHits.Load(), FrameMisses: c.frameMisses.Load(),
		ReadAheads: c.readAheads.Load(), CacheSkips: c.cacheSkips.Load(),
	}
}
