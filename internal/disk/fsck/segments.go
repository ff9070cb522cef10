package fsck

import (
	"context"
	"fmt"
	pathpkg "path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// segment is what maps say about one object that holds data.
type segment struct {
	owner format.Ancestor
	entry format.SegmentEntry
}

// addSegment notes a segment that a map refers to.
func (c *checker) addSegment(key string, owner format.Ancestor, e *format.SegmentEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onlyReach {
		c.hashes[c.hash(key)] = struct{}{}
		return
	}
	c.reached[key] = struct{}{}
	old := c.segments[key]
	if old == nil {
		c.segments[key] = &segment{owner: owner, entry: *e}
		return
	}
	a, b := old.entry, *e
	a.Live, b.Live, a.Lineage, b.Lineage = 0, 0, 0, 0
	if a != b {
		c.log.damage(key, "two maps describe it differently: %+v and %+v", a, b)
	}
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

// checkSegment reads a segment's header, and its frames if that was asked for.
func (c *checker) checkSegment(ctx context.Context, key string, s *segment) error {
	e := &s.entry
	r := blob.Range{Offset: 0, Length: int64(e.HeaderLen)}
	if c.opts.Data {
		r.Length = int64(e.Size)
	}
	b, size, err := c.get(ctx, key, r)
	if err != nil {
		return c.found(key, err)
	}
	h, err := format.DecodeLogHeader(b)
	if err != nil {
		return c.found(key, err)
	}
	c.log.count(func(r *Report) { r.Segments++ })
	uid, ok := parseID(s.owner.UID)
	if !ok || h.Disk != uid || h.Epoch != e.Epoch || h.Seq != e.Seq || h.Kind != e.Kind ||
		h.Blocks != e.Blocks ||
		h.Len() != int(e.HeaderLen) || size != int64(e.Size) || h.IsFence() {
		c.log.damage(key, "its header is not what the segment table says of it")
		return nil
	}
	c.checkFrames(key, s.owner.UID, h, b)
	return nil
}

// checkFrames opens a header, and decompresses every frame of an object if it was read whole. What
// is encrypted, and lacks its key, is held against its checksums only.
func (c *checker) checkFrames(key, uid string, h *format.LogHeader, object []byte) {
	okey, err := c.keysOf().Open(uid, h)
	locked := errs.Is(err, errs.Denied)
	switch {
	case locked:
		c.log.count(func(r *Report) { r.Locked++ })
	case err != nil:
		c.log.damage(key, "%v", err)
		return
	}
	if !c.opts.Data {
		return
	}
	body := object[h.Len():]
	buf := make([]byte, 0, format.FrameSize)
	for i, f := range h.Frames {
		end := int64(f.Offset) + int64(f.Length)
		if end > int64(len(body)) {
			c.log.damage(key, "frame %d ends at %d of %d bytes", i, end, len(body))
			return
		}
		stored := body[f.Offset:end]
		if locked {
			err = format.CheckFrame(stored, f)
		} else {
			_, err = c.codec.DecodeFrame(buf, stored, f, okey, i)
		}
		if err != nil {
			c.log.damage(key, "frame %d: %v", i, err)
			continue
		}
		c.log.count(func(r *Report) {
			if r.Frames++; locked {
				r.Locked++
			}
		})
	}
}

// checkLogs checks the log objects that no map refers to: fences, and what an attach would replay.
func (c *checker) checkLogs(ctx context.Context) error {
	uid, ok := parseID(c.head.UID)
	if !ok {
		c.log.damage(headKey(c.path), "its uid %q is none", c.head.UID)
		return nil
	}
	for _, l := range c.logs() {
		slices.Sort(l.seqs)
		if err := c.checkLog(ctx, uid, l); err != nil {
			return err
		}
	}
	return nil
}

// epochLog is the objects of one log.
type epochLog struct {
	epoch   uint64
	dir     string
	current bool // it is the head's of that epoch
	store   blob.Store
	sizes   map[string]int64 // by key
	seqs    []uint64
}

// logs returns all logs of the disk.
func (c *checker) logs() []*epochLog {
	if c.second != nil {
		return c.second.logs(c)
	}
	byEpoch := map[uint64]*epochLog{}
	var out []*epochLog
	for _, key := range c.below("log/") {
		p, ok := logPosition(strings.TrimPrefix(key, c.path+"/"))
		if !ok {
			c.log.damage(key, "is not the name of a log object")
			continue
		}
		l := byEpoch[p.Epoch]
		if l == nil {
			l = &epochLog{epoch: p.Epoch, dir: pathpkg.Dir(key), current: true,
				store: c.store, sizes: c.own}
			byEpoch[p.Epoch], out = l, append(out, l)
		}
		l.seqs = append(l.seqs, p.Seq)
	}
	return out
}

// checkLog goes over one log.
func (c *checker) checkLog(ctx context.Context, uid format.ID, l *epochLog) error {
	next := uint64(0)
	if l.current {
		next = c.replayFrom(l.epoch)
	}
	for _, seq := range l.seqs {
		key := fmt.Sprintf("%s/%016x", l.dir, seq)
		replay := next != 0 && seq == next
		if next != 0 && seq > next {
			if err := c.checkHole(ctx, uid, l, next, seq); err != nil {
				return err
			}
			next = 0
		}
		fenceSize := l.sizes[key] == int64(format.LogHeaderLen(0, 0))
		if !replay && (!fenceSize || c.isReached(key)) {
			continue
		}
		h, b, err := c.readLog(ctx, l.store, key, uid, l.epoch, seq)
		if err != nil {
			if err := c.found(key, err); err != nil {
				return err
			}
			continue
		}
		c.reach(key)
		if h.IsFence() {
			next = 0
			c.log.count(func(r *Report) { r.Fences++ })
			continue
		}
		if replay {
			next++
			c.log.count(func(r *Report) { r.LogObjects++ })
			c.checkFrames(key, c.head.UID, h, b)
			c.checkRuns(key, h)
		}
	}
	return nil
}

// checkHole tells of a hole in a log that goes on at a later number: damage, if an object beyond
// says that what was there had been acknowledged. The last object that is no fence knows most.
func (c *checker) checkHole(ctx context.Context, uid format.ID, l *epochLog, hole,
	after uint64) error {
	for i := len(l.seqs) - 1; i >= 0 && l.seqs[i] > hole; i-- {
		key := fmt.Sprintf("%s/%016x", l.dir, l.seqs[i])
		if l.sizes[key] == int64(format.LogHeaderLen(0, 0)) {
			continue
		}
		h, _, err := c.readLog(ctx, l.store, key, uid, l.epoch, l.seqs[i])
		if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Corrupt) {
			continue
		}
		if err != nil {
			return err
		}
		if h.Acknowledged() >= hole {
			c.log.damage(fmt.Sprintf("%s/%016x", l.dir, hole),
				"is missing, and was acknowledged to the writer: object %d of the log says so",
				h.Seq)
			return nil
		}
		break
	}
	c.log.note(
		"the log of epoch %d has a hole at %d, and goes on at %d: what lies beyond was never acknowledged", l.epoch, hole, after)
	return nil
}

// replayFrom returns the sequence number at which a replay of an epoch's log would begin, or 0 if
// there would be none.
func (c *checker) replayFrom(epoch uint64) uint64 {
	p := c.head.Log
	switch {
	case c.head.State == format.StateClosed, epoch < p.Epoch, epoch > c.head.Epoch:
		return 0
	case epoch == p.Epoch:
		return p.Seq
	}
	return 1
}

// readLog reads a log object whole and checks that it is what its key says.
func (c *checker) readLog(ctx context.Context, store blob.Store, key string, uid format.ID, epoch,
	seq uint64) (*format.LogHeader, []byte, error) {
	b, size, err := c.getFrom(ctx, store, key, blob.All())
	if err != nil {
		return nil, nil, err
	}
	h, err := format.DecodeLogHeader(b)
	if err != nil {
		return nil, nil, err
	}
	if h.Disk != uid || h.Epoch != epoch || h.Seq != seq || h.Kind != format.KindLog ||
		size != int64(h.Len())+int64(h.Body) {
		return nil, nil, errs.New(errs.Corrupt, "it holds another object")
	}
	return h, b, nil
}

func (c *checker) checkRuns(key string, h *format.LogHeader) {
	blocks := uint64(c.head.Size) / format.BlockSize
	for _, r := range h.Runs {
		if r.LBA+r.Count > blocks {
			c.log.damage(key, "it writes blocks %d to %d of a disk of %d", r.LBA,
				r.LBA+r.Count, blocks)
		}
	}
}
