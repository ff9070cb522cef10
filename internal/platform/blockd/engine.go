package blockd

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// EngineConfig says what the disk engine works with.
type EngineConfig struct {
	GatewayURL  string
	CacheDevice string // "" for none
	Log         *slog.Logger
}

// NewEngine returns the disk engine over the worker's store gateway.
func NewEngine(cfg EngineConfig) Engine { return &engine{cfg: cfg} }

type engine struct {
	cfg EngineConfig

	mu       sync.Mutex
	path     string // of what is prepared
	prepared *disk.Prepared
	cache    *cache.Cache // nil until first used, and where there is none
}

func (e *engine) store(access guestapi.StoreAccess) (*gatewayblob.Store, error) {
	return gatewayblob.New(gatewayblob.Config{BaseURL: e.cfg.GatewayURL, Token: access.Token})
}

// Prepare implements Engine.
func (e *engine) Prepare(ctx context.Context, access guestapi.StoreAccess) error {
	store, err := e.store(access)
	if err != nil {
		return err
	}
	var prepared *disk.Prepared
	key, err := keyOf(access)
	if err == nil {
		prepared, err = disk.Prepare(ctx, store, access.DiskPath,
			disk.PrepareOptions{Cache: e.openCache(ctx), Key: key})
	}
	if err != nil {
		return errors.Join(err, store.Close())
	}
	e.mu.Lock()
	e.path, e.prepared = access.DiskPath, prepared
	e.mu.Unlock()
	return store.Close()
}

// Attach implements Engine.
func (e *engine) Attach(ctx context.Context, a blockapi.Attach,
	timed func(part, of string, began time.Time)) (Disk, error) {
	key, err := keyOf(a.Store)
	if err != nil {
		return nil, err
	}
	store, err := e.store(a.Store)
	if err != nil {
		return nil, err
	}
	opts := disk.AttachOptions{Generation: uint64(a.Generation), Holder: a.Holder,
		Key: key, Logger: e.cfg.Log, Timed: timed}
	e.mu.Lock()
	if e.path == a.Store.DiskPath {
		opts.Prepared = e.prepared
	}
	e.prepared = nil // good for one attach
	e.mu.Unlock()
	opts.Cache = e.openCache(ctx)
	d, err := disk.Attach(ctx, store, a.Store.DiskPath, opts)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &attached{Disk: d, store: store, path: a.Store.DiskPath}, nil
}

// keyOf returns what opens an encrypted disk; nil if no key came along.
func keyOf(access guestapi.StoreAccess) (disk.KEK, error) {
	if len(access.Keys) == 0 {
		return nil, nil
	}
	return kek.NewRing(access.Keys...)
}

// openCache opens the cache device once, so that Attach finds what Prepare has read. Without a
// cache the disk is slower, but complete. The cache is closed by the end of the process.
func (e *engine) openCache(ctx context.Context) *cache.Cache {
	if e.cfg.CacheDevice == "" {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cache == nil {
		c, err := cache.Open(e.cfg.CacheDevice, 0)
		if err != nil {
			e.cfg.Log.WarnContext(ctx, "no disk cache", "error", err)
			return nil
		}
		e.cache = c
	}
	return e.cache
}

// attached is the engine's disk as blockd wants it.
type attached struct {
	*disk.Disk
	store *gatewayblob.Store
	path  string
}

var _ Disk = (*attached)(nil)

// Checkpoints implements Disk.
func (d *attached) Checkpoints(ctx context.Context) ([]*format.Checkpoint, error) {
	return disk.ListCheckpoints(ctx, d.store, d.path)
}

// Describe implements Disk.
func (d *attached) Describe() blockapi.Description {
	h := d.Head()
	return blockapi.Description{ID: h.ID, State: string(h.State), Mode: string(h.Mode),
		Epoch: h.Epoch, Generation: h.Generation,
		Holder: h.Holder, UpdatedAt: h.Updated}
}

// reportOf is what the fleet is told of a disk that is shown by a front end.
func reportOf(s disk.Stats, d blockapi.Description) fleet.DiskReport {
	return fleet.DiskReport{
		Epoch:        d.Epoch,
		FrontEnd:     d.FrontEnd,
		Requests:     int64(s.Gets + s.Puts + s.HeadSwaps + s.Lists), //nolint:gosec // counts
		BytesRead:    int64(s.GetBytes),                              //nolint:gosec // counts
		BytesWritten: int64(s.PutBytes),                              //nolint:gosec // counts
		Replayed:     int64(s.Replayed),                              //nolint:gosec // counts
	}
}

// flushesOf is what the worker is told of flushes.
func flushesOf(s disk.Stats) *fleet.DiskFlushes {
	f := &fleet.DiskFlushes{DirtyBytes: s.DirtyBytes, Waits: map[string]fleet.Durations{},
		Times: fleet.NewDurations(s.FlushTime, s.FlushTimes[:])}
	for name, w := range s.FlushWaits {
		f.Waits[string(name)] = fleet.NewDurations(w.Sum, w.Times[:])
	}
	return f
}

// ShowBy returns a Show that uses a front end, named as in the boot document. Auto is the kernel's
// NBD client if this VM has one, else FUSE. Only a VM with a kernel of its own has it: there
// nothing is left waiting if blockd dies, because the VM ends too. See docs/decisions/0014. A VM
// with a broker gets its disk by FUSE, and by nothing else. Unsupported: it is to be by NBD there.
func ShowBy(name string, broker *diskbroker.Client, log *slog.Logger) (Show, error) {
	kind, err := frontend.ParseKind(cmp.Or(name, string(frontend.Auto)))
	if err != nil {
		return nil, err
	}
	var host frontend.Host
	if broker != nil {
		if kind == frontend.NBD {
			return nil, errs.New(errs.Unsupported,
				"a VM that shares its worker's kernel has no NBD client").
				WithRemedy("start the worker with --guest-frontend auto or fuse, or --runtime qemu")
		}
		kind, host = frontend.FUSE, broker
	}
	return func(ctx context.Context, dev disk.Device, name string) (Shown, error) {
		cfg := frontend.Config{Name: name, Host: host, Logger: log}
		first := kind
		if kind == frontend.Auto {
			first = frontend.NBD
		}
		f, err := frontend.Show(ctx, dev, first, cfg)
		if kind == frontend.Auto && errs.Is(err, errs.Unsupported) {
			f, err = frontend.Show(ctx, dev, frontend.FUSE, cfg)
		}
		if err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "show the disk as a block device")
		}
		return f, nil
	}, nil
}
