package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	steps     = 30 // of a run
	faultRate = 10 // of 256 requests
	maxDisks  = 3
	maxBlocks = 24

	logURL = "sim://logs"
)

// world is one run: a pool, its disks and what is known about them.
type world struct {
	ctx     context.Context
	p       *pool
	rng     *rand.Rand
	seed    uint64
	disks   []*vdisk
	gone    []*vdisk // destroyed, or being destroyed
	orphans []string // paths of forks that failed
	hostile bool     // disks have writers that put junk among their objects
	junk    []string // keys of it
	doubts  atomic.Int64

	// Destroys of disks with a log store, begun and done: amid one a collector finds a head whose
	// log is gone.
	logDestroys, logDestroyed atomic.Int32
	coll                      *collector
	key                       disk.KEK // nil: disks in the clear

	mu      sync.Mutex
	ids     uint64 // of writes
	names   int
	quiet   bool  // nothing is begun any more
	err     error // the first violation
	trace   []string
	running sync.WaitGroup
	busy    map[any]bool
}

// vdisk is a disk as the world knows it.
type vdisk struct {
	path   string
	gen    uint64
	blocks int
	cur    *session
	closed bool        // for certain: the last session closed it
	busy   bool        // a restore is under way
	dead   atomic.Bool // it is being destroyed, or was: nothing may be lost by it but itself
	past   []*session
	last   *timeline
	other  []content // what a restore whose answer was lost may have made of it
	ckpts  map[string]content

	bound time.Duration // of mode bounded; 0: durable
	hosts []*host       // that have a journal for it
	home  *host         // of the last session, if that had a journal
	// the journal there is whole, and nobody has claimed the head elsewhere since
	intact bool
}

// session is one attachment.
type session struct {
	*timeline
	v      *vdisk
	d      *disk.Disk
	c      *client
	host   *host // nil: it has no journal
	blocks int
	// a write failed: nobody knows how much of it was taken, and nothing is written after it
	broken atomic.Bool
}

func newWorld(ctx context.Context, seed uint64, b bug) *world {
	w := &world{ctx: ctx, p: newPool(b), rng: rand.New(rand.NewPCG(seed, 1)), seed: seed,
		busy: map[any]bool{}}
	codec, err := format.NewCodec()
	if err != nil {
		w.violate("codec: %v", err)
		return w
	}
	w.coll = newCollector(w.p, w.client(), codec)
	if seed%3 == 2 && !b.ofJournal() {
		if w.key, err = kek.New([32]byte{byte(seed)}); err != nil {
			w.violate("key: %v", err)
		}
	}
	if seed%5 == 2 || b == fenceElsewhere {
		w.p.addLogs()
	}
	w.p.lies = b == noBug && seed%7 == 3 || b == believeAcks
	if w.p.logs != nil {
		w.p.logs.lies = w.p.lies
	}
	w.hostile = b == noBug && !w.p.lies && seed%4 == 1
	w.create()
	return w
}

// create makes a new disk, of mode bounded in a third of the runs.
func (w *world) create() {
	v := &vdisk{path: w.name("d/"), blocks: 8 + w.rng.IntN(maxBlocks-8), closed: true,
		ckpts: map[string]content{}}
	v.last = newTimeline(make(content, v.blocks))
	opts := disk.CreateOptions{Size: int64(v.blocks) * blockSize, Key: w.key}
	if w.key == nil && (w.seed%3 == 1 || w.p.bug.ofJournal()) {
		v.bound = []time.Duration{200 * time.Millisecond, time.Second,
			4 * time.Second}[w.rng.IntN(3)]
		v.hosts = []*host{newHost(), newHost()}
		if opts.Bound = v.bound; w.p.bug == ignoreBound {
			opts.Bound = time.Hour
		}
	}
	if w.p.logs != nil {
		opts.LogURL, opts.OpenLog = logURL, w.p.client(0, 0).openLog
	}
	if _, err := disk.Create(w.ctx, w.p.Store, v.path, opts); err != nil {
		w.violate("create: %v", err)
	}
	w.disks = append(w.disks, v)
}

func (w *world) client() *client { return w.p.client(w.rng.Uint64(), faultRate) }

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// violate notes that a property does not hold.
func (w *world) violate(format string, args ...any) {
	w.log("VIOLATION "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// start runs f beside the driver, unless who is at something already.
func (w *world) start(who any, f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[who] {
		return false
	}
	w.busy[who] = true
	w.running.Go(func() {
		f()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, who)
	})
	return true
}

func (w *world) idle(who any) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.busy[who]
}

// wait lets who finish.
func (w *world) wait(who any) {
	for !w.idle(who) {
		time.Sleep(time.Millisecond)
	}
}

func (w *world) nextID() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	return w.ids
}

func (w *world) name(prefix string) string {
	w.names++
	return fmt.Sprint(prefix, w.names)
}

// attach makes a new writer, and holds what it finds against what the one before wrote.
func (w *world) attach(v *vdisk, c *client) *session {
	v.gen++
	opts := disk.AttachOptions{Generation: v.gen, Holder: fmt.Sprint("vm-", v.gen), Key: w.key,
		OpenLog: c.openLog}
	opts.ObjectBytes, opts.CheckpointObjects, opts.InFlight, opts.DirtyBytes = 4*blockSize, 3,
		3, 64*blockSize
	opts.StallTimeout, opts.OpTimeout, opts.BootWindow = 20*time.Second, 4*time.Second, -1
	opts.FrameBytes = 8 * blockSize
	if w.rng.IntN(2) == 0 {
		opts.Revalidate = -1
	}
	if w.seed%4 == 1 && !w.quiet { // packed segments, too
		opts.CompactBytes, opts.CompactShare = blockSize, 4
	}
	h := w.chooseHost(v)
	kept := h != nil && h == v.home && v.intact
	opts.Journal = w.mount(v, h)
	if h != nil && !w.quiet && w.rng.IntN(w.dying()) == 0 { // the host dies while it attaches
		death := h.death // of this mount, not of a later one
		defer time.AfterFunc(time.Duration(w.rng.IntN(60))*time.Millisecond, func() {
			c.kill()
			death.Kill()
		}).Stop()
	}
	d, err := disk.Attach(w.ctx, c, v.path, opts)
	w.log("attach %s generation %d%v: %v", v.path, v.gen, w.where(v, h), err)
	if h != v.home {
		v.intact = false // by now the head may name another session
	}
	var got content
	if err == nil {
		if got, err = w.read(d); err == nil && h != nil && h.death.Dead() {
			err = errs.New(errs.Unavailable, "the host died meanwhile")
		}
		if err != nil {
			d.Abandon()
		}
	}
	if err != nil {
		w.unmount(v, h)
		if w.brokeByLies(err) {
			v.closed = false
			return nil
		}
		if !errs.Is(err, errs.Unavailable) && !v.dead.Load() {
			w.violate("attach %s, or read it then: %v", v.path, err)
		}
		v.closed = false
		return nil
	}
	s := &session{v: v, d: d, c: c, host: h, blocks: int(d.Size() / blockSize),
		timeline: newTimeline(got)}
	if h != nil {
		h.user, s.bound = s, v.bound
	}
	w.succeed(v, got, kept)
	if v.cur != nil {
		v.past = append(v.past, v.cur)
	}
	v.cur, v.last, v.closed, v.other, v.blocks, v.home, v.intact = s, s.timeline, false, nil,
		len(got), h, h != nil
	return s
}

// succeed holds what a new writer found against what the one before wrote.
func (w *world) succeed(v *vdisk, got content, kept bool) {
	n, err := v.last.prefix(got, kept)
	if err != nil {
		for _, o := range v.other {
			padded := make(content, len(got))
			copy(padded, o)
			if slices.Equal(padded, got) {
				n, err = v.last.count(), nil
			}
		}
	}
	if err == nil {
		err = v.last.succeed(n)
	}
	if err != nil {
		w.violate("%s after an attach with generation %d: %v", v.path, v.gen, err)
	}
	w.log("  it has %d of %d writes", n, v.last.count())
}

// read reads a whole device, more than once if the store makes it hard.
func (w *world) read(d disk.Device) (c content, err error) {
	for range 3 {
		if c, err = readContent(w.ctx, d); !errs.Is(err, errs.Unavailable) {
			break
		}
	}
	return c, err
}

// burst makes some writes in a session, and flushes.
func (w *world) burst(s *session, seed uint64) {
	if s.broken.Load() {
		return
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	buf := make([]byte, 4*blockSize)
	for range 1 + rng.IntN(6) {
		from := rng.IntN(s.blocks)
		wr := write{from: from, to: min(s.blocks, from+1+rng.IntN(4)), id: w.nextID(),
			trim: rng.IntN(6) == 0}
		s.add(wr)
		off, n := int64(wr.from)*blockSize, (wr.to-wr.from)*blockSize
		var err error
		if wr.trim {
			err = s.d.Trim(w.ctx, off, int64(n))
		} else {
			for b := wr.from; b < wr.to; b++ {
				stamp(buf[(b-wr.from)*blockSize:][:blockSize], wr.id, b)
			}
			err = s.d.WriteAt(w.ctx, buf[:n], off)
		}
		s.took()
		if err != nil {
			s.broken.Store(true)
			w.ended(s, err)
			return
		}
		if rng.IntN(3) == 0 {
			w.flush(s)
		}
	}
	w.flush(s)
}

func (w *world) flush(s *session) {
	n := s.count()
	if err := s.d.Flush(w.ctx); err != nil {
		w.ended(s, err)
	} else if w.p.lies { // an acknowledgement is worth nothing here
		if n%2 == 0 {
			w.prove(s)
		}
	} else if err := s.ack(n); err != nil && !s.v.dead.Load() { // of a destroyed disk fences go too
		w.violate("%v", err)
	}
}

// ended checks that a session fails for a reason.
func (w *world) ended(s *session, err error) {
	if !s.v.dead.Load() && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Fenced) &&
		!errs.Is(err, errs.Invalid) {
		w.violate("a session broke: %v", err)
	}
	w.log("  session of epoch %d: %v", s.d.Head().Epoch, err)
}
