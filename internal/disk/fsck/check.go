package fsck

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// parallel is how many objects are read at a time.
const parallel = 8

// Options says how far a check goes.
type Options struct {
	Data     bool                         // read every frame too, not the headers alone
	Key      disk.KEK                     // unwraps the keys of an encrypted disk; nil: what is encrypted is held against its checksums only
	OpenLog  disk.OpenStore               // opens the log store of a disk that has its log in a second one
	Progress func(done, total int64)      // segments checked and to check; may be nil
	Garbage  func(key string, size int64) // called for each unreachable object, by key; may be nil
	// Unpinned checks without a pin, for who may not write to the store, or of one that nobody collects: what a
	// collector deletes meanwhile is reported as damage.
	Unpinned bool
	PinLease time.Duration // how long the pin lasts if the check is killed; 0: the usual time
}

// checker is one check under way.
type checker struct {
	store     blob.Store
	second    *logStore // nil: the log is in the store
	path      string
	opts      Options
	codec     *format.Codec
	log       log
	cache     pageCache
	head      *format.Head
	onlyReach bool             // for a Reach: whatever can't be read is an error, and regions and segments are not read
	own       map[string]int64 // every object of the disk: key → size
	holds     []*disk.Hold     // of the disk and its forks

	mu       sync.Mutex
	keys     format.Keys
	reached  map[string]struct{} // keys, of ancestors' objects too
	segments map[string]*segment // by key

	// Of a Reach, segments instead. Two keys of one hash make it keep a piece of garbage, once in many pools; what must not be
	// mistaken, whether a map was walked, is told by its key.
	hashes map[uint64]struct{}
	seed   maphash.Seed
}

// Check reads a disk's head, checkpoints, maps, segment headers and log, and with Options.Data everything
// else, and reports what is damaged and what can't be reached. Damage is no error; errors are NotFound (no
// disk), Denied (Options.Key is not its key, or the store refuses a pin), Unsupported (its log is in a second store and there is no
// Options.OpenLog), Conflict (the pin was lost, and what was found means nothing), and whatever kept it from reading.
func Check(ctx context.Context, store blob.Store, path string, opts Options) (*Report, error) {
	if !format.ValidPath(path) {
		return nil, errs.New(errs.Invalid, "bad disk path %q", path)
	}
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	r := &Report{Path: path, Unreachable: map[string]Tally{}, Damage: []Finding{}, Notes: []string{}}
	c := &checker{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()), path: path, opts: opts, codec: codec, log: log{r: r}, own: map[string]int64{},
		reached: map[string]struct{}{}, segments: map[string]*segment{}}
	if _, _, err := c.get(ctx, headKey(path), blob.All()); errs.Is(err, errs.NotFound) { // a path without a disk gets no pin
		return nil, errs.Wrap(errs.NotFound, err, "no disk at %s", path).WithRemedy("check the path")
	}
	defer c.release(ctx)
	if err := c.hold(ctx, path); err != nil {
		return nil, err
	}
	if ok, err := c.readHead(ctx); !ok || err != nil {
		return r, err
	}
	// The head comes first, and the listing after it: what the head refers to was there before.
	if err := c.list(ctx); err != nil {
		return nil, err
	}
	if err := c.openLog(ctx); err != nil {
		return nil, err
	}
	defer c.closeLog()
	for _, step := range []func(context.Context) error{c.checkMaps, c.checkPins, c.checkForks, c.checkTrace, c.checkSegments, c.checkLogs} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.held(); err != nil {
		return nil, err
	}
	c.sumUp()
	return r, nil
}

func (c *checker) readHead(ctx context.Context) (bool, error) {
	key := headKey(c.path)
	b, _, err := c.get(ctx, key, blob.All())
	if errs.Is(err, errs.NotFound) {
		return false, errs.Wrap(errs.NotFound, err, "no disk at %s", c.path).WithRemedy("check the path")
	}
	if err != nil {
		return false, err
	}
	c.head, err = format.DecodeHead(b)
	if errs.Is(err, errs.Unsupported) {
		return false, err
	}
	if err != nil {
		c.log.damage(key, "%v", err)
		return false, nil
	}
	h := c.head
	c.log.count(func(r *Report) { r.State, r.Epoch, r.SizeBytes = string(h.State), h.Epoch, h.Size })
	if h.Lineage[0].Path != c.path || h.Lineage[0].UID != h.UID {
		c.log.damage(key, "its lineage begins with %s (%s), not with itself (%s)", h.Lineage[0].Path, h.Lineage[0].UID, h.UID)
	}
	if h.State == format.StateOpen {
		c.log.note("the disk is open: %q attached it with generation %d (epoch %d)", h.Holder, h.Generation, h.Epoch)
	}
	return true, c.unlock(ctx)
}

// unlock takes the keys of the disk's lineage from its head.
func (c *checker) unlock(ctx context.Context) error {
	e := c.head.Encryption
	if e == nil {
		return nil
	}
	c.log.count(func(r *Report) { r.Cipher = e.Cipher })
	if c.opts.Key == nil {
		c.log.note("the disk is encrypted and no key was given: signatures, encrypted contents, live counts and which blocks are mapped were not checked")
		return nil
	}
	keys, err := disk.Unlock(ctx, c.head, c.opts.Key)
	c.keys = keys
	return err
}

// keysOf returns the keys that are known so far.
func (c *checker) keysOf() format.Keys {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys
}

// unlockFork adds a fork's keys, which the key that was given may not open.
func (c *checker) unlockFork(ctx context.Context, path string, h *format.Head) error {
	if h.Encryption == nil || c.opts.Key == nil {
		return nil
	}
	more, err := disk.Unlock(ctx, h, c.opts.Key)
	if errs.Is(err, errs.Denied) {
		c.log.note("fork %s is under another key, and was held against its checksums only", path)
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(more)
	maps.Copy(all, c.keys)
	c.keys = all
	return nil
}

func (c *checker) list(ctx context.Context) error {
	err := c.store.List(ctx, c.path+"/", "", func(e blob.Entry) bool {
		if len(c.holds) == 0 || e.Key != c.holds[0].Key() {
			c.own[e.Key] = e.Size
		}
		return true
	})
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "list objects of %s", c.path)
	}
	return nil
}

// below returns the sorted keys of the disk's objects of one kind, such as "ckpt/".
func (c *checker) below(prefix string) []string {
	var keys []string
	for k := range c.own {
		if strings.HasPrefix(k, c.path+"/"+prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// get reads a range and counts it. A short answer is Corrupt.
func (c *checker) get(ctx context.Context, key string, r blob.Range) ([]byte, int64, error) {
	return c.getFrom(ctx, c.store, key, r)
}

func (c *checker) getFrom(ctx context.Context, store blob.Store, key string, r blob.Range) ([]byte, int64, error) {
	obj, err := store.Get(ctx, key, r)
	if err != nil {
		return nil, 0, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	c.log.count(func(r *Report) { r.ReadBytes += int64(len(obj.Data)) })
	if r.Length >= 0 && int64(len(obj.Data)) != r.Length {
		return nil, 0, errs.New(errs.Corrupt, "object of %d bytes; %d at %d were looked for", obj.Size, r.Length, r.Offset)
	}
	return obj.Data, obj.Size, nil
}

// found turns an error of reading what must be there into damage, and gives back any other.
func (c *checker) found(key string, err error) error {
	switch {
	case c.onlyReach:
		return errs.Wrap(errs.KindOf(err), err, "%s", key)
	case errs.Is(err, errs.NotFound):
		c.log.damage(key, "is missing")
	case errs.Is(err, errs.Corrupt), errs.Is(err, errs.Invalid): // Invalid: a range past the end
		c.log.damage(key, "%v", err)
	default:
		return err
	}
	return nil
}

// reach marks an object as reachable, and reports whether it is for the first time.
func (c *checker) reach(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, again := c.reached[key]
	c.reached[key] = struct{}{}
	return !again
}

func (c *checker) isReached(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.reached[key]; ok || !c.onlyReach {
		return ok
	}
	_, ok := c.hashes[c.hash(key)]
	return ok
}

func (c *checker) hash(key string) uint64 { return maphash.String(c.seed, key) }

// checkMaps walks the maps of the head and of every checkpoint.
func (c *checker) checkMaps(ctx context.Context) error {
	if err := c.walk(ctx, c.head.Lineage, c.head.Root, c.head.Size, true); err != nil {
		return err
	}
	for _, key := range c.below("ckpt/") {
		c.reach(c.path + "/boot/of/" + strings.TrimPrefix(key, c.path+"/ckpt/"))
		c.log.count(func(r *Report) { r.Checkpoints++ })
		b, _, err := c.get(ctx, key, blob.All())
		var p *format.Checkpoint
		if err == nil {
			p, err = format.DecodeCheckpoint(b)
		}
		if err != nil {
			if err := c.found(key, err); err != nil {
				return err
			}
			continue
		}
		if p.UID != c.head.UID || c.path+"/ckpt/"+p.Name != key || !slices.Equal(p.Lineage, c.head.Lineage) {
			c.log.damage(key, "checkpoint %q of disk %s with a lineage of %d doesn't belong here", p.Name, p.UID, len(p.Lineage))
			continue
		}
		if err := c.walk(ctx, p.Lineage, p.Root, p.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkPins walks what pins hold.
func (c *checker) checkPins(ctx context.Context) error {
	for _, key := range c.below("pins/") {
		b, _, err := c.get(ctx, key, blob.All())
		var p *format.Pin
		if err == nil {
			p, err = format.DecodePin(b)
		}
		switch {
		case errs.Is(err, errs.NotFound): // its reader has just ended
			continue
		case err != nil:
			if err := c.found(key, err); err != nil {
				return err
			}
			continue
		}
		c.log.count(func(r *Report) { r.Pins++ })
		if p.Map == nil {
			continue
		}
		if err := c.walk(ctx, p.Map.Lineage, p.Map.Root, p.Map.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkForks walks the maps of all that depends on the disk, for what they reach of it.
func (c *checker) checkForks(ctx context.Context) error {
	todo, seen := []string{c.path}, map[string]bool{c.path: true}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		if path != c.path {
			if err := c.walkFork(ctx, path); err != nil {
				return err
			}
		}
		var refs []string
		if err := c.store.List(ctx, path+"/refs/", "", func(e blob.Entry) bool {
			refs = append(refs, e.Key)
			return true
		}); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "list forks of %s", path)
		}
		for _, key := range refs {
			b, _, err := c.get(ctx, key, blob.All())
			var ref *format.Ref
			if err == nil {
				ref, err = format.DecodeRef(b)
			}
			if err != nil {
				if err := c.found(key, err); err != nil {
					return err
				}
				continue
			}
			if !seen[ref.Child] && format.ValidPath(ref.Child) {
				seen[ref.Child] = true
				todo = append(todo, ref.Child)
			}
		}
	}
	return nil
}

// walkFork walks a fork's head and checkpoints. Their lineage holds this disk further on.
func (c *checker) walkFork(ctx context.Context, path string) error {
	b, _, err := c.get(ctx, headKey(path), blob.All())
	if errs.Is(err, errs.NotFound) {
		c.log.note("fork %s is registered, and isn't there: it was never finished, or is destroyed", path)
		return nil
	}
	if err == nil {
		if err = c.hold(ctx, path); err == nil { // and only then what it refers to
			b, _, err = c.get(ctx, headKey(path), blob.All())
		}
	}
	if err != nil {
		return err
	}
	h, err := format.DecodeHead(b)
	if err != nil {
		c.log.note("fork %s can't be read, so that what it needs may be counted as unreachable: %v", path, err)
		return nil
	}
	c.log.count(func(r *Report) { r.Forks++ })
	if err := c.unlockFork(ctx, path, h); err != nil {
		return err
	}
	if err := c.walk(ctx, h.Lineage, h.Root, h.Size, false); err != nil {
		return err
	}
	var points []string
	if err := c.store.List(ctx, path+"/ckpt/", "", func(e blob.Entry) bool {
		points = append(points, e.Key)
		return true
	}); err != nil {
		return err
	}
	for _, key := range points {
		b, _, err := c.get(ctx, key, blob.All())
		if err != nil {
			return err
		}
		p, err := format.DecodeCheckpoint(b)
		if err != nil {
			c.log.note("checkpoint %s can't be read, so that what it needs may be counted as unreachable: %v", key, err)
			continue
		}
		if err := c.walk(ctx, p.Lineage, p.Root, p.Size, false); err != nil {
			return err
		}
	}
	return nil
}

// checkTrace looks at the boot trace. It is a hint: without it the next boot is slower, and nothing is lost.
func (c *checker) checkTrace(ctx context.Context) error {
	if c.head.Boot == 0 {
		return nil
	}
	key := fmt.Sprintf("%s/boot/%016x", c.path, c.head.Boot)
	c.reach(key)
	b, _, err := c.get(ctx, key, blob.All())
	if err == nil {
		_, err = format.DecodeTrace(b)
	}
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Corrupt) {
		c.log.note("the boot trace can't be read, so that the next start reads nothing ahead: %v", err)
		return nil
	}
	return err
}

// checkSegments reads the header, or all, of every segment that a map refers to.
func (c *checker) checkSegments(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	var done int64
	total := int64(len(c.segments))
	for key, s := range c.segments {
		g.Go(func() error {
			err := c.checkSegment(gctx, key, s)
			c.mu.Lock()
			defer c.mu.Unlock()
			if done++; c.opts.Progress != nil {
				c.opts.Progress(done, total)
			}
			return err
		})
	}
	return g.Wait()
}

// sumUp counts what wasn't reached.
func (c *checker) sumUp() {
	for _, key := range c.below("") {
		rel, size := strings.TrimPrefix(key, c.path+"/"), c.own[key]
		kind := kindOf(rel)
		c.count(key, kind, size, c.inFlight(kind, rel))
	}
	if c.second != nil {
		for _, key := range slices.Sorted(maps.Keys(c.second.objects)) {
			epoch, _, seq, ok := secondLog(c.head.UID, key)
			c.count(key, "log", c.second.objects[key], ok && c.inFlightLog(format.Position{Epoch: epoch, Seq: seq}))
		}
	}
}

func (c *checker) count(key, kind string, size int64, inFlight bool) {
	r := c.log.r
	r.Own.add(size)
	switch {
	case c.isReached(key), kind == "head", kind == "ckpt", kind == "refs", kind == "pins":
	case inFlight:
		r.InFlight.add(size)
	default:
		t := r.Unreachable[kind]
		t.add(size)
		r.Unreachable[kind] = t
		if c.opts.Garbage != nil {
			c.opts.Garbage(key, size)
		}
	}
}

// inFlightLog is inFlight of a log object.
func (c *checker) inFlightLog(p format.Position) bool {
	return c.head.State == format.StateOpen && p.Epoch == c.head.Epoch && (p.Epoch > c.head.Log.Epoch || p.Seq >= c.head.Log.Seq)
}

// inFlight reports whether an unreached object may be one that the present writer is about to refer to.
func (c *checker) inFlight(kind, rel string) bool {
	if c.head.State != format.StateOpen {
		return false
	}
	switch kind {
	case "log":
		p, ok := logPosition(rel)
		return ok && c.inFlightLog(p)
	case "boot":
		return rel == fmt.Sprintf("boot/%016x", c.head.Epoch)
	case "seg":
		epoch, n, ok := segNumber(rel)
		return ok && epoch == c.head.Epoch && n >= uint64(c.head.Packed)
	case "map":
		epoch, n, ok := mapEpoch(rel)
		root := c.head.Root
		return ok && epoch == c.head.Epoch && (root == nil || root.Lineage > 0 || root.Epoch < epoch || uint64(root.N) < n)
	}
	return false
}

func parseID(s string) (format.ID, bool) {
	id, err := ulid.ParseStrict(s)
	return format.ID(id), err == nil
}
