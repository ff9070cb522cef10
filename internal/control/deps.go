package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/state"
)

// Disks is what the control plane asks of the pool of disks. All methods are idempotent, so that
// they can be repeated after a crash, and safe for concurrent use.
type Disks interface {
	// ForkImage makes the disk at dstURL a fork of the image's checkpoint, sizeBytes large (0: as
	// the image), encrypted under key unless that is nil. It succeeds if such a disk is there
	// already.
	ForkImage(ctx context.Context, image fleet.Image, dstURL string, sizeBytes int64,
		key disk.KEK) error
	// Rekey changes the key of an encrypted disk, also while somebody has it attached.
	Rekey(ctx context.Context, url string, old, next disk.KEK) error
	// WriteOwner writes the owner's document beside the disk's head, replacing an older one.
	WriteOwner(ctx context.Context, url string, doc []byte) error
	// Destroy removes the disk, or leaves it to the collector. A missing disk is no error.
	Destroy(ctx context.Context, url string) error
}

// Images builds images. Build may take minutes; one that fails leaves nothing that a user can see.
type Images interface {
	Build(ctx context.Context, name fleet.ImageName, sizeBytes int64,
		tar io.Reader) (fleet.Image, error)
}

// IDs makes identities. Safe for concurrent use.
type IDs interface {
	// Machine returns 14 lower-case hex digits that begin with the cell.
	Machine(cell string) fleet.MachineID
	// ULID returns a ULID; later ones sort after earlier ones.
	ULID(now time.Time) string
}

// Config configures a Control. Zero values mean the defaults.
type Config struct {
	FleetID  string
	StoreURL string // of the pool; a machine's disk is StoreURL/disks/<machine id>
	Cell     string // two hex digits; default "01"
	Policy   fleet.Policy
	// Executors bounds how many records are acted on at once; default 8. A quarter as many, at
	// least two, wait for the object store.
	Executors int
	// Tick is how often silence, timeouts and back-off are judged; default 100 ms. Nothing else
	// waits for it.
	Tick time.Duration
	// MaxAttempts is how many targets a move tries before it is undone; default 3.
	MaxAttempts int
	// Trace has assignments tell workers where in their move's trace they are.
	Trace bool
	// CollectEvery is how often the pool of disks is collected, the first time after at most ten
	// minutes; 0: never.
	CollectEvery time.Duration
}

// Deps are what a Control stands on.
type Deps struct {
	Store   state.Store
	Disks   Disks
	Images  Images
	Garbage Garbage // nil: the pool is not collected
	// Keys are the fleet's; nil: it has none, so that no disk is encrypted and no secret kept.
	Keys *seal.Keyring
	// Authority makes certificates; nil: no worker can be enrolled.
	Authority Authority
	Log       *slog.Logger
	Now       func() time.Time // default time.Now
	IDs       IDs              // default random
	// MoveEnded is told of each move that this server ended, once that is durable; nil: nobody is.
	MoveEnded func(fleet.Move)
}

func (cfg Config) withDefaults() Config {
	if cfg.Cell == "" {
		cfg.Cell = "01"
	}
	def, p := fleet.DefaultPolicy(), &cfg.Policy
	p.MovesPerNetwork = cmp.Or(p.MovesPerNetwork, def.MovesPerNetwork)
	p.MovesOut = cmp.Or(p.MovesOut, def.MovesOut)
	p.MovesIn = cmp.Or(p.MovesIn, def.MovesIn)
	p.MovesFleet = cmp.Or(p.MovesFleet, def.MovesFleet)
	p.BrakeFraction = cmp.Or(p.BrakeFraction, def.BrakeFraction)
	p.WorkerSuspect = cmp.Or(p.WorkerSuspect, def.WorkerSuspect)
	p.WorkerDown = cmp.Or(p.WorkerDown, def.WorkerDown)
	p.StartTimeout = cmp.Or(p.StartTimeout, def.StartTimeout)
	p.PrepareWait = cmp.Or(p.PrepareWait, def.PrepareWait)
	cfg.Executors = cmp.Or(cfg.Executors, 8)
	cfg.Tick = cmp.Or(cfg.Tick, 100*time.Millisecond)
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, 3)
	return cfg
}

// randomIDs draws identities from the system's random source.
type randomIDs struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy // grows within a millisecond
}

func newRandomIDs() *randomIDs { return &randomIDs{entropy: ulid.Monotonic(rand.Reader, 0)} }

// Machine implements IDs.
func (r *randomIDs) Machine(cell string) fleet.MachineID {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return fleet.MachineID(cell + hex.EncodeToString(b[:]))
}

// ULID implements IDs.
func (r *randomIDs) ULID(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ulid.MustNew(ulid.Timestamp(now), r.entropy).String()
}
