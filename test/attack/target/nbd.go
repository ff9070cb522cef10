package main

import (
	"context"
	"fmt"
	"net"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
)

// exportSize is that of the disk that is served.
const exportSize = 64 << 20

// serveNBD serves a real disk, in a store in memory.
func serveNBD(ctx context.Context, l net.Listener) (any, func() error, error) {
	store := memblob.New()
	if _, err := disk.Create(ctx, store, "disks/a",
		disk.CreateOptions{Size: exportSize}); err != nil {
		return nil, nil, fmt.Errorf("create a disk: %w", err)
	}
	d, err := disk.Attach(ctx, store, "disks/a",
		disk.AttachOptions{Generation: 1, Holder: "target"})
	if err != nil {
		return nil, nil, fmt.Errorf("attach it: %w", err)
	}
	s, err := nbd.New(nbd.Config{Exports: []nbd.Export{{Name: "a", Device: d}}}, l)
	if err != nil {
		return nil, nil, err
	}
	return struct{}{}, func() error {
		defer d.Abandon()
		return s.Run(ctx)
	}, nil
}
