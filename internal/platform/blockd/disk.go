package blockd

import (
	"context"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
)

// Disk is an attached disk, as the engine gives it.
type Disk interface {
	disk.Device
	// Close flushes and closes the disk cleanly: the next attach replays nothing.
	Close(ctx context.Context) error
	// Abandon stops the disk without writing.
	Abandon()
	// Stopped is closed when the disk has stopped for good, in whatever way; Err says in which.
	Stopped() <-chan struct{}
	Err() error
	// Settle flushes and writes the map, so that Close has little left to do.
	Settle(ctx context.Context) error
	// Stalled and HoldIO are those of the engine's Disk.
	Stalled() (*disk.Stall, <-chan struct{})
	HoldIO(on bool)
	Checkpoint(ctx context.Context, name string) error
	Checkpoints(ctx context.Context) ([]blockapi.Checkpoint, error)
	Describe() blockapi.Description
	Report() fleet.DiskReport
	Stats() disk.Stats
}

// Engine attaches disks.
type Engine interface {
	// Prepare reads, without owning the disk, what Attach will need.
	Prepare(ctx context.Context, store guestapi.StoreAccess) error
	Attach(ctx context.Context, a blockapi.Attach) (Disk, error)
}

// Shown is a disk that the kernel has as a block device.
type Shown = frontend.Shown

// Show makes a disk a block device.
type Show func(ctx context.Context, dev disk.Device, name string) (Shown, error)
