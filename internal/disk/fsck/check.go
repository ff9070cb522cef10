package fsck

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

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
	Data bool // read every frame too, not the headers alone
	// unwraps the keys of an encrypted disk; nil: what is encrypted is held against its checksums
	// only
	Key disk.KEK
	// opens the log store of a disk that has its log in a second one
	OpenLog  disk.OpenStore
	Progress func(done, total int64)      // segments checked and to check; may be nil
	Garbage  func(key string, size int64) // called for each unreachable object, by key; may be nil
	// Unpinned checks without a pin, for who may not write to the store, or of one that nobody
	// collects: what a collector deletes meanwhile is reported as damage.
	Unpinned bool
	PinLease time.Duration // how long the pin lasts if the check is killed; 0: the usual time
}

// checker is one check under way.
type checker struct {
	store  blob.Store
	second *logStore // nil: the log is in the store
	path   string
	opts   Options
	codec  *format.Codec
	log    log
	cache  pageCache
	head   *format.Head
	// for a Reach: whatever can't be read is an error, and regions and segments are not read
	onlyReach bool
	own       map[string]int64 // every object of the disk: key → size
	holds     []*disk.Hold     // of the disk and its forks

	mu       sync.Mutex
	keys     format.Keys
	reached  map[string]struct{} // keys, of ancestors' objects too
	segments map[string]*segment // by key

	// Of a Reach, segments instead. Two keys of one hash make it keep a piece of garbage, once in
	// many pools; what must not be mistaken, whether a map was walked, is told by its key.
	hashes map[uint64]struct{}
	seed   maphash.Seed
}

// Check reads a disk's head, checkpoints, maps, segment headers and log, and with Options.Data
// everything else, and reports what is damaged and what can't be reached. Damage is no error;
// errors are NotFound (no disk), Denied (Options.Key is not its key, or the store refuses a pin),
// Unsupported (its log is in a second store and there is no Options.OpenLog), Conflict (the pin was
// lost, and what was found means nothing), and whatever kept it from reading.
func Check(ctx context.Context, store blob.Store, path string, opts Options) (*Report, error) {
	if !format.ValidPath(path) {
		return nil, errs.New(errs.Invalid, "bad disk path %q", path)
	}
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	r := &Report{Path: path, Unreachable: map[string]Tally{}, Damage: []Finding{},
		Notes: []string{}}
	c := &checker{store: decorate.Retry(decorate.Whole(store), decorate.DefaultRetry()), path: path,
		opts: opts, codec: codec, log: log{r: r}, own: map[string]int64{},
		reached: map[string]struct{}{}, segments: map[string]*segment{}}
	// a path without a disk gets no pin
	if _, _, err := c.get(ctx, headKey(path), blob.All()); errs.Is(err, errs.NotFound) {
		return nil, errs.Wrap(errs.NotFound, err, "no disk at %s", path).
			WithRemedy("check the path")
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
	for _, step := range []func(context.Context) error{c.checkMaps, c.checkPins, c.checkForks,
		c.checkTrace, c.checkSegments, c.checkLogs} {
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
		return false, errs.Wrap(errs.NotFound, err, "no disk at %s", c.path).
			WithRemedy("check the path")
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
	c.log.count(func(r *Report) {
		r.State, r.Epoch, r.SizeBytes = string(h.State),
			h.Epoch, h.Size
	})
	if h.Lineage[0].Path != c.path || h.Lineage[0].UID != h.UID {
		c.log.damage(key, "its lineage begins with %s (%s), not with itself (%s)",
			h.Lineage[0].Path, h.Lineage[0].UID, h.UID)
	}
	if h.State == format.StateOpen {
		c.log.note("the disk is open: %q attached it with generation %d (epoch %d)", h.Holder,
			h.Generation, h.Epoch)
	}
	return true, c.unlock(ctx)
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
	if _, ok := c.own[headKey(c.path)]; ok {
		return nil
	}
	if _, _, err := c.get(ctx, headKey(c.path), blob.All()); err != nil {
		return err
	}
	return errs.New(errs.Unavailable,
		"the store has %s and doesn't list it: its listings can't be believed, and a check means nothing", headKey(c.path)).
		WithRemedy(
			"check again later; if it stays so, find out what is wrong with the store, or with what is before it")
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

func (c *checker) getFrom(ctx context.Context, store blob.Store, key string,
	r blob.Range) ([]byte, int64, error) {
	obj, err := store.Get(ctx, key, r)
	if err != nil {
		return nil, 0, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	c.log.count(func(r *Report) { r.ReadBytes += int64(len(obj.Data)) })
	if r.Length >= 0 && int64(len(obj.Data)) != r.Length {
		return nil, 0, errs.New(errs.Corrupt, "object of %d bytes; %d at %d were looked for",
			obj.Size, r.Length, r.Offset)
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
