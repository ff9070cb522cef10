package blockd

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
)

// Disk is an attached disk, as the engine gives it.
type Disk interface {
	disk.Device
	diskapi.Disk
	// Close flushes and closes the disk cleanly: the next attach replays nothing.
	Close(ctx context.Context) error
	// Abandon stops the disk without writing.
	Abandon()
	// Settle flushes and writes the map, so that Close has little left to do.
	Settle(ctx context.Context) error
	// HoldIO is that of the engine's Disk.
	HoldIO(on bool)
	Describe() blockapi.Description
}

// Engine attaches disks.
type Engine interface {
	// Prepare reads, without owning the disk, what Attach will need.
	Prepare(ctx context.Context, store guestapi.StoreAccess) error
	// Attach attaches a disk. Timed is told of each part of that, and later of the disk's close,
	// when it has ended.
	Attach(ctx context.Context, a blockapi.Attach,
		timed func(part, of string, began time.Time)) (Disk, error)
}

// Shown is a disk that the kernel has as a block device.
type Shown = frontend.Shown

// Show makes a disk a block device.
type Show func(ctx context.Context, dev disk.Device, name string) (Shown, error)
