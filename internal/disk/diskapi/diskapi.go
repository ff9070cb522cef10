// Package diskapi is how the process that has a disk attached is asked about it, and told to do
// what only it can do: HTTP and JSON on a unix socket.
//
// A command that has a disk attached on a host serves it, and blockd does for the disk of a
// machine, below PathDisk of its own calls.
//
// Invariants: who asks may be of another release, so paths and fields are only added. An error is
// an api.ErrorBody. A path that an older release lacks answers Unsupported. A change that was begun
// is finished, also when who asked has gone.
package diskapi

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// Paths on the socket.
const (
	PathStats       = "/stats"       // GET → disk.Stats
	PathCheckpoints = "/checkpoints" // GET → []api.DiskCheckpoint
	// POST; makes a checkpoint → api.DiskCheckpoint
	PathCheckpoint = "/checkpoints/{name}"
	PathMode       = "/mode" // POST Mode
	PathSize       = "/size" // POST Size
	// POST Stall → Stall; answers when it is another one, or still the same after a moment
	PathStall = "/stall"
)

// PathDisk is where a process with calls of its own has these.
const PathDisk = "/disk"

// Mode asks for another way to acknowledge flushes.
type Mode struct {
	BoundMS int64  `json:"bound_ms"`          // 0: durable
	Journal string `json:"journal,omitempty"` // "": the one that it has
	// JournalSize is as people write it; "": what is there has, or the default.
	JournalSize string `json:"journal_size,omitempty"`
}

// Bound is the mode's bound; 0: durable.
func (m Mode) Bound() time.Duration { return time.Duration(m.BoundMS) * time.Millisecond }

// Size asks for a larger disk.
type Size struct {
	Bytes int64 `json:"size_bytes"`
}

// Stall carries what there is of a stall of the store, or what the caller knows of it.
type Stall struct {
	Stall *disk.Stall `json:"stall,omitempty"` // nil: the store does what it is asked for
}

// Disk is an attached disk that answers. Its methods are the engine's but for Checkpoints.
type Disk interface {
	Stats() disk.Stats
	Checkpoint(ctx context.Context, name string) (*format.Checkpoint, error)
	Checkpoints(ctx context.Context) ([]*format.Checkpoint, error)
	Stalled() (*disk.Stall, <-chan struct{})
	// Stopped is closed when the disk has stopped for good; Err says why.
	Stopped() <-chan struct{}
	Err() error
}

// Changer is a Disk that takes changes. Of one that isn't, they are Unsupported.
type Changer interface {
	SetMode(ctx context.Context, m Mode) error
	Grow(ctx context.Context, size int64) error
}

// Source gives the disk that is asked about.
type Source interface {
	// Disk returns the disk that is attached. Unavailable: none is.
	Disk() (Disk, error)
	// AwaitDisk waits until one is attached. It may have been closed again.
	AwaitDisk(ctx context.Context) (Disk, error)
}

// Attached is a Source that has its disk from the beginning.
func Attached(d Disk) Source { return attached{d} }

type attached struct{ disk Disk }

func (a attached) Disk() (Disk, error)                     { return a.disk, nil }
func (a attached) AwaitDisk(context.Context) (Disk, error) { return a.disk, nil }
