package frontend

import (
	"context"
	"log/slog"
	"strings"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Kind is a way to show a device to the kernel.
type Kind string

// The kinds that there are. Auto is FUSE for Show, since others are left when the caller dies;
// where they aren't, in a VM, its caller prefers NBD. docs/decisions/0014 has the reasons.
const (
	Auto Kind = "auto"
	FUSE Kind = "fuse" // a FUSE file and a loop device over it
	NBD  Kind = "nbd"  // the kernel's NBD client, served by this process
)

// ParseKind reads a kind as a user writes it.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Auto, FUSE, NBD:
		return k, nil
	}
	return "", errs.New(errs.Invalid, "there is no front end %q", s).
		WithRemedy("use one of: auto, fuse, nbd")
}

// Shown is a device that the kernel sees as a block device. Its methods are safe for concurrent
// use.
type Shown interface {
	Kind() Kind
	// BlockDevice returns the path of the block device.
	BlockDevice() string
	// Done is closed when nothing serves the device any more: after Close, or because somebody else
	// has ended it, after which every access to it fails.
	Done() <-chan struct{}
	// Resize has the kernel know the size that the device has by now, which is not below the one
	// that it had. What is on the block device is not touched. Doing it again is safe.
	Resize() error
	// Close writes out what the block device holds, flushes, detaches it, and returns when nothing
	// serves it any more. File systems on it must have been unmounted before: if after 30 s, or
	// when ctx ends, the device is still used, it is torn away from its users, who get EIO, and
	// Close returns a Conflict. Idempotent.
	Close(ctx context.Context) error
}

var (
	_ Shown = (*Frontend)(nil)
	_ Shown = (*NBDDevice)(nil)
)

// Kind implements Shown.
func (f *Frontend) Kind() Kind { return FUSE }

// Show serves dev as a block device of dev.Size() bytes with 4 KiB sectors, until Close; see Attach
// and AttachNBD.
func Show(ctx context.Context, dev disk.Device, kind Kind, cfg Config) (Shown, error) {
	if kind == NBD {
		n, err := AttachNBD(ctx, dev, cfg)
		if err != nil {
			return nil, err
		}
		return n, nil
	}
	f, err := Attach(ctx, dev, cfg)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// complete checks what is to be shown, and fills in what is not set.
func (cfg *Config) complete(dev disk.Device) error {
	if cfg.Name == "" || len(cfg.Name) > 64 || strings.ContainsAny(cfg.Name, "/\x00") {
		return errs.New(errs.Invalid, "bad name %q of a block device", cfg.Name)
	}
	if size := dev.Size(); size <= 0 || size%disk.BlockSize != 0 {
		return errs.New(errs.Invalid, "device of %d bytes, not a multiple of %d", size,
			disk.BlockSize)
	}
	if cfg.DevDir == "" {
		cfg.DevDir = "/dev"
	}
	if cfg.Host == nil {
		cfg.Host = NewOwnHost(cfg.DevDir)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
