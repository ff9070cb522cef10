package disk

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
)

const (
	maxPreparedDirs    = 64   // directory pages: 256 GiB of disk
	maxPreparedSegs    = 64   // segment-table pages: 65,536 segments
	maxPreparedRegions = 8192 // region pages: 32 GiB of disk
)

// Prepared is what was read of a disk ahead of an attach, while another still writes it. It is good
// for one Attach, which uses nothing of what changed meanwhile.
type Prepared struct {
	head *format.Head
	root *format.Root

	mu     sync.Mutex
	stored map[format.PageRef][]byte
	warm   bool // the blocks of the boot trace are in the cache
}

// PrepareOptions has what Prepare can use.
type PrepareOptions struct {
	// Cache gets the blocks that the last boot read first; nil: they are left to the attach. The
	// attach must be given the same one.
	Cache *cache.Cache
	// Key unwraps the keys of an encrypted disk; nil for one in the clear.
	Key KEK
	// Boot bounds how long Prepare spends on them; default 700 ms.
	Boot time.Duration
}

// Prepare reads the head, the map root and map pages, newest disk areas not preferred, up to a
// bound. It writes nothing and disturbs nobody. Map pages are immutable, so that after the writer's
// clean close all but the few that changed still hold.
func Prepare(
	ctx context.Context, store blob.Store, path string, opts PrepareOptions,
) (*Prepared, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	head, _, err := client.LoadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	p := &Prepared{head: head}
	if head.Root == nil {
		return p, nil
	}
	keys, err := Unlock(ctx, head, opts.Key)
	if err != nil {
		return nil, err
	}
	src := &pageSource{store: client, codec: codec, lineage: head.Lineage, keys: keys}
	if p.root, err = src.loadRoot(ctx, head.Root); err != nil {
		return nil, err
	}
	top := append(some(p.root.Dirs, maxPreparedDirs), some(p.root.Segs, maxPreparedSegs)...)
	move(top, head.Root.Lineage)
	if err := src.readAhead(ctx, top); err != nil {
		return nil, err
	}
	regions, err := p.regions(src, head.Root.Lineage)
	if err != nil {
		return nil, err
	}
	if err := src.readAhead(ctx, regions); err != nil {
		return nil, err
	}
	p.stored = src.stored
	return p, p.warmBoot(ctx, client, src, path, opts)
}

// warmBoot reads what the last boot read first, as it is in the newest map, into the cache.
func (p *Prepared) warmBoot(
	ctx context.Context, client *store.Client, src *pageSource, path string, opts PrepareOptions,
) error {
	key, ok := traceOf(p.head)
	if opts.Cache == nil || !ok {
		return nil
	}
	def(&opts.Boot, 700*time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, opts.Boot)
	defer cancel()
	t := newTasks(ctx)
	defer t.stop()
	pages := &pageSource{store: client, codec: src.codec, lineage: src.lineage, keys: src.keys,
		stored: maps.Clone(src.stored)}
	tune := Tuning{}.withDefaults(true)
	rd := newReader(pages, opts.Cache, t, &counters{}, tune)
	rd.setSize(p.head.Size)
	if err := rd.use(p.root, p.head.Root.Lineage, tune.MapBytes); err != nil {
		return err
	}
	warmTrace(ctx, client, key, rd)
	p.warm = ctx.Err() == nil
	return nil
}

// warmed reports whether the blocks of the boot trace are in the cache.
func (p *Prepared) warmed() bool { return p != nil && p.warm }

// regions returns the references in the directory pages that src holds.
func (p *Prepared) regions(src *pageSource, distance int) ([]format.PageRef, error) {
	var all []format.PageRef
	for i, ref := range p.root.Dirs {
		ref.Lineage += uint16(distance)
		stored := src.stored[ref]
		if stored == nil {
			continue
		}
		page, err := src.decode(stored, ref)
		if err != nil {
			return nil, err
		}
		refs := make([]format.PageRef, format.DirRegions)
		if err := format.DecodeDirPage(refs, page, uint32(i)); err != nil {
			return nil, err
		}
		got := some(refs, maxPreparedRegions-len(all))
		move(got, int(ref.Lineage))
		if all = append(all, got...); len(all) >= maxPreparedRegions {
			break
		}
	}
	return all, nil
}

// some returns the references that are not empty, at most n.
func some(refs []format.PageRef, n int) []format.PageRef {
	var out []format.PageRef
	for _, r := range refs {
		if r.Length > 0 && len(out) < n {
			out = append(out, r)
		}
	}
	return out
}

func move(refs []format.PageRef, distance int) {
	for i := range refs {
		refs[i].Lineage += uint16(distance)
	}
}

// takePages hands the pages over, once.
func (p *Prepared) takePages() map[format.PageRef][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stored
	p.stored = nil
	return s
}

// rootFor returns the root that a head points at, if it is the one that was prepared. A head
// without a root needs none.
func (p *Prepared) rootFor(h *format.Head) (*format.Root, bool) {
	if h.Root == nil {
		return nil, true
	}
	if p == nil || p.head.UID != h.UID || p.head.Root == nil || *p.head.Root != *h.Root {
		return nil, false
	}
	return p.root, true
}
