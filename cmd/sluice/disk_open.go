package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

// diskRef is a disk in an open store, of whose silence this command tells.
type diskRef struct {
	*host.Ref
	notices []*storeNotice // of its stores that may be silent
}

// openDisk opens the store that a disk is in.
func (d *deps) openDisk(ctx context.Context, url string) (*diskRef, error) {
	var notices []*storeNotice
	ref, err := host.Open(ctx, url, func(store blob.Store, name string) blob.Store {
		noticed, n := d.noticing(store, name)
		notices = append(notices, n)
		return noticed
	})
	if err != nil {
		return nil, err
	}
	return &diskRef{Ref: ref, notices: notices}, nil
}

// within says how long its stores are waited for, where that is not as usual.
func (r *diskRef) within(limit time.Duration) {
	for _, n := range r.notices {
		if limit > 0 {
			n.within(limit)
		}
	}
}

// quiet has nothing told of its stores any more: an attachment does so itself.
func (r *diskRef) quiet() {
	for _, n := range r.notices {
		n.end()
	}
}

// openLogOf opens the store of a disk's log for an attach of it.
func (d *deps) openLogOf(ref *diskRef, limit time.Duration) disk.OpenStore {
	return func(ctx context.Context, url string) (blob.Store, error) {
		store, err := openLog(ctx, url)
		if err != nil {
			return nil, err
		}
		noticed, n := d.noticing(store, url)
		ref.notices = append(ref.notices, n)
		ref.within(limit)
		return noticed, nil
	}
}

// registry returns where the attachments of this host are recorded.
func (d *deps) registry() *attachment.Registry {
	dir := d.env("SLUICE_RUN_DIR")
	switch runtime := d.env("XDG_RUNTIME_DIR"); {
	case dir != "":
	case os.Getuid() == 0:
		dir = "/run/sluice"
	case runtime != "":
		dir = filepath.Join(runtime, "sluice")
	default:
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("sluice-%d", os.Getuid()))
	}
	return attachment.Open(filepath.Join(dir, "disks"))
}

// diskLogger is for the background work of a disk that a person waits for.
func (d *deps) diskLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(d.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// attachConfig returns how flags say that a disk is attached.
func (d *deps) attachConfig(ref *diskRef, takeOver bool,
	tuning disk.Tuning) (host.AttachConfig, error) {
	j, err := d.journal.config()
	ref.within(tuning.StallTimeout)
	return host.AttachConfig{Registry: d.registry(), Key: d.diskKey, Journal: j, TakeOver: takeOver,
		OpenLog: d.openLogOf(ref, tuning.StallTimeout), Tuning: tuning, Logger: d.diskLogger()}, err
}

// attach makes this process a disk's writer, as host.Attach does.
func (d *deps) attach(ctx context.Context, ref *diskRef, takeOver bool) (*host.Writer, error) {
	cfg, err := d.attachConfig(ref, takeOver, disk.Tuning{})
	if err != nil {
		return nil, err
	}
	return host.Attach(ctx, ref.Ref, &cfg)
}

// placeOf says where an attachment is to be found.
func placeOf(r *attachment.Record) string {
	if r.Mode == attachment.Device {
		return r.BlockDevice
	}
	return r.Mountpoint + strings.Join(r.NBD, " ")
}

// settle sees to it that a disk's head tells all there is, as host.Settle does.
func (d *deps) settle(ctx context.Context, ref *diskRef, takeOver bool) error {
	cfg, err := d.attachConfig(ref, takeOver, disk.Tuning{})
	if err != nil {
		return err
	}
	return host.Settle(ctx, ref.Ref, &cfg)
}

// openLog opens the store of a disk's log.
func openLog(ctx context.Context, url string) (blob.Store, error) { return blobs.Open(ctx, url) }
