package disk

import (
	"cmp"
	"context"
	"path"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// What a store says is not what it did: a write that was acknowledged may not have been made. So
// the bytes of every log object stay in memory until the store has shown that it has it. It is
// asked for that beside uploads, in time for a map to refer to them. What is not there is written
// again. See docs/decisions/0021-proof-of-what-is-stored.md.

const (
	// proofByList is how many objects one listing proves more cheaply than as many reads.
	proofByList = 8
	// proofReads is how many objects are looked at at a time.
	proofReads = 8
	// maxUnprovenFactor times ObjectBytes is what waits for its proof at most: then uploads wait,
	// too.
	maxUnprovenFactor = 3
)

// unprovenObject is what the store has acknowledged and not shown.
type unprovenObject struct {
	at    *store.Client
	seq   uint64 // of a log object; 0: it is a packed segment
	key   string
	body  []byte
	owned bool // nobody else reads the body, and it may be used again
	users int  // who read it for a proof; guarded by the list's lock
}

// unproven is all of them. Safe for concurrent use.
type unproven struct {
	wake signal // wakes proofLoop

	mu      sync.Mutex
	objects []*unprovenObject
	bytes   int64
}

func newUnproven() unproven { return unproven{wake: newSignal()} }

// add keeps an object and returns how much is kept now.
func (u *unproven) add(o *unprovenObject) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.objects = append(u.objects, o)
	u.bytes += int64(len(o.body))
	return u.bytes
}

func (u *unproven) size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes
}

// take returns the objects that are wanted, whose bodies stay as they are until done is called.
func (u *unproven) take(want func(*unprovenObject) bool) (taken []*unprovenObject) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range u.objects {
		if want(o) {
			o.users++
			taken = append(taken, o)
		}
	}
	return taken
}

// done ends a take. What is proven, or not needed any more, is let go of. It returns bodies that
// nobody reads any more, and how many objects are gone.
func (u *unproven) done(taken []*unprovenObject, proven bool) (bodies [][]byte, gone int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range taken {
		o.users--
	}
	if !proven {
		return nil, 0
	}
	u.objects = slices.DeleteFunc(u.objects, func(o *unprovenObject) bool {
		if !slices.Contains(taken, o) {
			return false
		}
		u.bytes -= int64(len(o.body))
		gone++
		if o.owned && o.users == 0 {
			bodies = append(bodies, o.body)
		}
		return true
	})
	return bodies, gone
}

// keepUnproven keeps what the store has just acknowledged, until it is proven.
func (d *Disk) keepUnproven(o *unprovenObject) {
	if d.unproven.add(o) < int64(d.opts.ObjectBytes) {
		return
	}
	d.unproven.wake.notify()
}

// tooMuchUnproven reports whether uploads must wait for a proof.
func (d *Disk) tooMuchUnproven() bool {
	return d.unproven.size() >= maxUnprovenFactor*int64(d.opts.ObjectBytes)
}

// proofLoop proves what was written when much of it waits for that.
func (d *Disk) proofLoop(ctx context.Context) {
	for d.due(ctx, d.unproven.wake, nil) {
		for d.prove(ctx, func(*unprovenObject) bool { return true }) != nil && d.Err() == nil {
			if backoff.Sleep(ctx, checkpointRetry) != nil {
				return
			}
		}
	}
}

// proveForMap returns when the store has shown all that the next map may refer to. On a disk with a
// log store that is no log object.
func (d *Disk) proveForMap(ctx context.Context) error {
	return d.prove(ctx, func(o *unprovenObject) bool { return o.at == d.store })
}

// prove returns when the store has shown that it has what it had acknowledged before the call. What
// it lacks is written again. An object that is another's fences the disk.
func (d *Disk) prove(ctx context.Context, want func(*unprovenObject) bool) error {
	objects := d.unproven.take(want)
	if len(objects) == 0 {
		return nil
	}
	listed := d.listUnproven(ctx, objects)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(proofReads)
	for _, o := range objects {
		if size, ok := listed[o.key]; ok && size == int64(len(o.body)) {
			continue
		}
		g.Go(func() error { return o.at.Prove(gctx, o.key, o.body) })
	}
	err := g.Wait()
	d.provenUnproven(objects, err == nil)
	if errs.Is(err, errs.Conflict) {
		d.uploadFailed(ctx, "the log of "+d.path, err)
		return d.Err()
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "see that the log is stored")
	}
	return nil
}

// listUnproven lists where the log objects must be, if that is cheaper than to read each. A listing
// that fails shows nothing, and what it doesn't show is read.
func (d *Disk) listUnproven(ctx context.Context, objects []*unprovenObject) map[string]int64 {
	logs := slices.DeleteFunc(slices.Clone(objects), func(o *unprovenObject) bool {
		return o.seq == 0
	})
	if len(logs) < proofByList {
		return nil
	}
	bySeq := func(a, b *unprovenObject) int { return cmp.Compare(a.seq, b.seq) }
	first, last := slices.MinFunc(logs, bySeq), slices.MaxFunc(logs, bySeq)
	before, err := d.logKey(d.epoch, first.seq-1)
	if err != nil {
		return nil
	}
	prefix, listed := path.Dir(first.key)+"/", map[string]int64{}
	err = d.logStore.List(ctx, prefix, before, func() { clear(listed) }, func(e blob.Entry) bool {
		listed[e.Key] = e.Size
		return e.Key < last.key
	})
	if err != nil {
		return nil
	}
	return listed
}

// provenUnproven ends a take. If the objects are proven it lets go of them, and starts uploads that
// waited for that.
func (d *Disk) provenUnproven(objects []*unprovenObject, proven bool) {
	bodies, gone := d.unproven.done(objects, proven)
	for _, b := range bodies {
		d.memory.bodies.put(b, d.opts.InFlight)
	}
	if gone > 0 {
		d.counters.proven.Add(uint64(gone))
		d.pipe.mu.Lock()
		d.pumpLocked()
		d.pipe.mu.Unlock()
	}
}

// dropMapped lets go of log objects of a log store that a written map makes superfluous.
func (d *Disk) dropMapped(last uint64) {
	if d.logPlace != nil {
		d.provenUnproven(d.unproven.take(func(o *unprovenObject) bool {
			return o.seq > 0 && o.seq <= last
		}), true)
	}
}

// healUnproven writes what a reader has not found again, if it is kept, and reports whether the
// store has it now.
func (d *Disk) healUnproven(ctx context.Context, key string) bool {
	objects := d.unproven.take(func(o *unprovenObject) bool { return o.key == key })
	if len(objects) == 0 {
		return false
	}
	err := objects[0].at.Prove(ctx, key, objects[0].body)
	d.provenUnproven(objects, err == nil)
	return err == nil
}
