package disk

import (
	"log/slog"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
)

// AttachOptions says who attaches and with what.
type AttachOptions struct {
	// Generation is the owner's counter of placements, at least 1. An attach with an older one than
	// the head's is refused as Fenced. The same one is accepted from the same Holder only, which
	// takes over from its own earlier session and fences it. From others it is refused as Conflict.
	Generation uint64
	// Holder names the incarnation of the VM that attaches; for people, and for the rule above.
	Holder string
	// Cache is a local frame cache, or nil. It may serve several disks and stays the caller's to
	// close.
	Cache *cache.Cache
	// Key unwraps the keys of an encrypted disk; nil for one in the clear.
	Key KEK
	// Journal is what a disk of mode bounded acknowledges flushes by, or nil: then it acknowledges
	// them like a durable one. Acknowledged writes that it has and the store lacks are written to
	// the store before the attach returns. One disk uses it at a time; it stays the caller's to
	// close, after the disk.
	Journal *journal.Journal
	// OpenLog opens the log store of a disk that has one, by the URL in its head. The disk closes
	// it. nil: such a disk is refused as Unsupported.
	OpenLog OpenStore
	// Prepared is what Prepare read earlier, or nil. What no longer holds of it is not used.
	Prepared *Prepared
	// Logger gets warnings of background work; nil discards them.
	Logger *slog.Logger
	// Timed is told of each part of Attach and of Close when it has ended: its name, the part that
	// it belongs to or "", and when it began. It may be called concurrently, and must not wait.
	// nil: nobody is told.
	Timed func(part, of string, began time.Time)
	Tuning
}

// pinLease is how long a pin lasts without being renewed.
const pinLease = 15 * time.Minute

// Tuning has knobs whose zero value is a good default, which each comment ends with.
type Tuning struct {
	InFlight     int           // log objects being uploaded at a time; 4
	ObjectBytes  int           // content at which a log object is sealed, at most 64 MiB; 8 MiB
	DirtyBytes   int64         // written content in memory at which writes wait; 64 MiB
	SealInterval time.Duration // age at which unflushed writes are uploaded anyway; 1 s

	// StallAfter is how long a store completes none of its pending requests until it is reported as
	// stalled; 2 s.
	StallAfter time.Duration
	// StallTimeout is how long a flush, read or write waits for the store before it fails.
	// Negative: for ever; 60 s.
	StallTimeout time.Duration
	// OpTimeout bounds one attempt of a request to the store; 30 s.
	OpTimeout time.Duration
	// Revalidate is how often a busy disk asks whether it is still the writer. Negative: never; 2
	// s.
	Revalidate time.Duration

	CheckpointObjects  int           // log objects between map checkpoints; 64
	CheckpointInterval time.Duration // time between map checkpoints of a changing disk; 60 s
	MapBytes           int64         // clean map regions in memory, at least 1 MiB; 128 MiB
	FrameBytes         int64         // frames in memory; 32 MiB, or 12 MiB beside a cache device

	// BootWindow is how long after an attach first reads are recorded for the next one. Negative:
	// never; 10 s.
	BootWindow time.Duration
	NoHedge    bool // never ask the store a second time for a read that is late
	// FrameIdle is how long nobody reads or writes until memory for frames beyond 8 MiB is given
	// back; 1 min.
	FrameIdle time.Duration
	// ReadAhead is the most to read ahead of a sequential reader, in bytes. Negative: nothing;
	// 8 MiB.
	ReadAhead int64
	// PinLease is how long a reader's pin lasts that is not renewed, from 1 s to 24 h; 15 min.
	PinLease time.Duration
	// CompactBytes is the dead content at which the background compaction begins. Negative: never;
	// 64 MiB.
	CompactBytes int64
	// CompactShare is the most that the background compaction adds, as a share of what the disk
	// writes; 0.25.
	CompactShare float64
}

func def[T int | int64 | float64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (t Tuning) withDefaults(cached bool) Tuning {
	def(&t.InFlight, 4)
	def(&t.ObjectBytes, 8<<20)
	t.ObjectBytes = max(format.BlockSize, min(t.ObjectBytes, 64<<20))
	def(&t.DirtyBytes, 64<<20)
	t.DirtyBytes = max(t.DirtyBytes, 2*int64(t.ObjectBytes))
	def(&t.SealInterval, time.Second)
	def(&t.StallAfter, 2*time.Second)
	def(&t.StallTimeout, time.Minute)
	def(&t.OpTimeout, 30*time.Second)
	def(&t.Revalidate, 2*time.Second)
	def(&t.CheckpointObjects, 64)
	def(&t.CheckpointInterval, time.Minute)
	def(&t.MapBytes, 128<<20)
	t.MapBytes = max(t.MapBytes, 1<<20)
	if cached {
		def(&t.FrameBytes, 12<<20)
	}
	def(&t.FrameBytes, 32<<20)
	def(&t.FrameIdle, time.Minute)
	def(&t.ReadAhead, 8<<20)
	def(&t.BootWindow, 10*time.Second)
	def(&t.CompactBytes, 64<<20)
	def(&t.CompactShare, 0.25)
	def(&t.PinLease, pinLease)
	t.PinLease = max(time.Second, min(t.PinLease, format.MaxLeaseMS*time.Millisecond))
	return t
}

func discardLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
