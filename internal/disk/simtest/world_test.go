package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
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
	forks sync.Map // path of each fork → when it was done, zero while it is under way

	ctx   context.Context
	p     *pool
	rng   *rand.Rand
	seed  uint64
	disks []*vdisk
	coll  *collector
	key   disk.KEK // nil: disks in the clear

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
	closed bool // for certain: the last session closed it
	busy   bool // a restore is under way
	last   *timeline
	other  []content // what a restore whose answer was lost may have made of it
	past   []*session
	ckpts  map[string]content
}

// session is one attachment.
type session struct {
	*timeline
	d      *disk.Disk
	c      *client
	blocks int
}

func newWorld(ctx context.Context, seed uint64, b bug) *world {
	w := &world{ctx: ctx, p: newPool(b), rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, busy: map[any]bool{}}
	codec, err := format.NewCodec()
	if err != nil {
		w.violate("codec: %v", err)
		return w
	}
	w.coll = newCollector(w.p, w.client(), codec)
	if seed%3 == 2 {
		if w.key, err = kek.New([32]byte{byte(seed)}); err != nil {
			w.violate("key: %v", err)
		}
	}
	opts := disk.CreateOptions{Key: w.key}
	if seed%5 == 2 || b == fenceElsewhere {
		w.p.addLogs()
		opts.LogURL, opts.OpenLog = logURL, w.p.client(0, 0).openLog
	}
	blocks := 8 + w.rng.IntN(maxBlocks-8)
	opts.Size = int64(blocks) * blockSize
	if _, err := disk.Create(ctx, w.p.Store, "d/0", opts); err != nil {
		w.violate("create: %v", err)
	}
	w.disks = []*vdisk{{path: "d/0", blocks: blocks, closed: true, last: newTimeline(make(content, blocks)), ckpts: map[string]content{}}}
	return w
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
	opts := disk.AttachOptions{Generation: v.gen, Holder: fmt.Sprint("vm-", v.gen), Key: w.key, OpenLog: c.openLog}
	opts.ObjectBytes, opts.CheckpointObjects, opts.InFlight, opts.DirtyBytes = 4*blockSize, 3, 3, 64*blockSize
	opts.StallTimeout, opts.OpTimeout, opts.BootWindow = 20*time.Second, 4*time.Second, -1
	opts.FrameBytes = 8 * blockSize
	if w.rng.IntN(2) == 0 {
		opts.Revalidate = -1
	}
	if w.seed%4 == 1 && !w.quiet { // packed segments, too
		opts.CompactBytes, opts.CompactShare = blockSize, 4
	}
	d, err := disk.Attach(w.ctx, c, v.path, opts)
	w.log("attach %s generation %d: %v", v.path, v.gen, err)
	if err != nil {
		if !errs.Is(err, errs.Unavailable) {
			w.violate("attach %s: %v", v.path, err)
		}
		v.closed = false
		return nil
	}
	s := &session{d: d, c: c, blocks: int(d.Size() / blockSize)}
	got, err := w.read(d)
	if err != nil {
		d.Abandon()
		if !errs.Is(err, errs.Unavailable) {
			w.violate("read %s after an attach: %v", v.path, err)
		}
		v.closed = false
		return nil
	}
	s.timeline = newTimeline(got)
	n, err := v.last.prefix(got)
	if err != nil {
		for _, o := range v.other {
			padded := make(content, len(got))
			copy(padded, o)
			if fmt.Sprint(padded) == fmt.Sprint(got) {
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
	if v.cur != nil {
		v.past = append(v.past, v.cur)
	}
	v.cur, v.last, v.closed, v.other, v.blocks = s, s.timeline, false, nil, len(got)
	return s
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
	rng := rand.New(rand.NewPCG(seed, 2))
	buf := make([]byte, 4*blockSize)
	for range 1 + rng.IntN(6) {
		from := rng.IntN(s.blocks)
		wr := write{from: from, to: min(s.blocks, from+1+rng.IntN(4)), id: w.nextID(), trim: rng.IntN(6) == 0}
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
		if err != nil {
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
	} else if err := s.ack(n); err != nil {
		w.violate("%v", err)
	}
}

// ended checks that a session fails for a reason.
func (w *world) ended(s *session, err error) {
	if !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Fenced) && !errs.Is(err, errs.Invalid) {
		w.violate("a session broke: %v", err)
	}
	w.log("  session of epoch %d: %v", s.d.Head().Epoch, err)
}
