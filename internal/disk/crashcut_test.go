package disk_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// cutRun plays a recorded stream to a disk until its store is cut off.
type cutRun struct {
	ops    []deviceOp
	base   sums // before ops
	rng    *rand.Rand
	cache  string // path, or none
	second bool   // the disk's log is in a second store

	begun  int  // ops that were begun
	acked  int  // ops that an acknowledged flush or close covers
	named  int  // ops in the checkpoint "mid"; 0: none
	backTo bool // a restore of "mid" is under way
	gen    uint64
}

// play goes through every kind of operation of a disk on its way: map checkpoints, a named one,
// closes, a fork, and a restore there and back.
func (r *cutRun) play(ctx context.Context, c *simClient) error {
	d, done, err := r.attach(ctx, c)
	if err != nil {
		return err
	}
	defer func() { done() }()
	at := func(i, percent int) bool { return i == len(r.ops)*percent/100 }
	for i := range r.ops {
		r.begun = i + 1
		if err := r.ops[i].apply(ctx, d); err != nil {
			return err
		}
		if r.ops[i].flush {
			r.acked = i + 1
		}
		switch {
		case i%50 == 49:
			err = r.damageCache(ctx, d)
		case at(i, 40):
			if _, err = d.Checkpoint(ctx, "mid"); err == nil {
				r.acked, r.named = i+1, i+1
			}
		case at(i, 60):
			_, err = disk.Fork(ctx, c, path, "mid", "disks/child", disk.ForkOptions{})
		case at(i, 50), at(i, 80):
			if err = d.Close(ctx); err == nil {
				r.acked = i + 1
				done()
				if at(i, 80) {
					err = r.thereAndBack(ctx, c)
				}
			}
			if err == nil {
				d, done, err = r.attach(ctx, c)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := d.Close(ctx); err != nil {
		return err
	}
	r.acked = len(r.ops)
	return nil
}

func (r *cutRun) attach(ctx context.Context, c *simClient) (*disk.Disk, func(), error) {
	r.gen++
	opts := disk.AttachOptions{Generation: r.gen, Holder: fmt.Sprint("vm-", r.gen)}
	if r.second {
		opts.OpenLog = secondOf(c)
	}
	opts.ObjectBytes, opts.CheckpointObjects, opts.DirtyBytes, opts.FrameBytes = 64<<10,
		5, 1<<20, 256<<10
	closeCache := func() {}
	if r.cache != "" {
		dev, err := cache.Open(r.cache, 2<<20)
		if err != nil {
			return nil, closeCache, err
		}
		opts.Cache, closeCache = dev, func() { _ = dev.Close() }
	}
	d, err := disk.Attach(ctx, c, path, opts)
	if err != nil {
		closeCache()
		return nil, func() {}, err
	}
	return d, func() { d.Abandon(); closeCache() }, nil
}

// thereAndBack restores "mid", and then what that has saved.
func (r *cutRun) thereAndBack(ctx context.Context, c *simClient) error {
	r.backTo = true
	_, saved, err := disk.Restore(ctx, c, path, "mid")
	if err == nil {
		_, _, err = disk.Restore(ctx, c, path, saved)
	}
	if err == nil {
		r.backTo = false
	}
	return err
}

// damageCache flips bytes of the cache's file or takes it away, and reads something.
func (r *cutRun) damageCache(ctx context.Context, d *disk.Disk) error {
	if r.cache != "" {
		if r.rng.IntN(4) == 0 {
			_ = os.Remove(r.cache)
		} else if f, err := os.OpenFile(r.cache, os.O_RDWR, 0); err == nil {
			for range 64 {
				_, _ = f.WriteAt([]byte{byte(r.rng.Uint32())}, r.rng.Int64N(2<<20))
			}
			_ = f.Close()
		}
	}
	buf := make([]byte, 64<<10)
	return d.ReadAt(ctx, buf, r.rng.Int64N(streamSize/4096-16)*4096)
}

// check says of how many whole ops got is the content, with a part of the next at most, and whether
// that is allowed.
func (r *cutRun) check(got sums) (int, error) {
	bad := 0
	now := append(sums(nil), r.base...)
	for b := range got {
		if now[b] != got[b] {
			bad++
		}
	}
	zero := sumsOf(make([]byte, 4096))[0]
	best, named := -1, false
	note := func(k int) {
		if bad == 0 {
			best, named = k, named || k == r.named
		}
	}
	note(0)
	for k := range r.ops[:r.begun] {
		op := &r.ops[k]
		// a large write may be cut between any two blocks
		for b := op.off / 4096; b < (op.off+op.n)/4096; b++ {
			was := now[b] == got[b]
			if now[b] = zero; op.data != nil {
				now[b] = sumsOf(op.data[b*4096-op.off:][:4096])[0]
			}
			if is := now[b] == got[b]; was && !is {
				bad++
			} else if is && !was {
				bad--
			}
			note(k)
		}
		note(k + 1)
	}
	switch {
	case best < 0:
		return 0, fmt.Errorf("no prefix of %d requests", r.begun)
	case best < r.acked && !(r.backTo && named):
		return 0, fmt.Errorf("lost: content of %d requests, %d were acknowledged", best, r.acked)
	}
	return best, nil
}

// TestCrashCuts replays what a real ext4 asked of its device, cuts the store off before or after
// one of the requests that the disk makes of it, attaches anew, and asks the prefix oracle and, of
// a share, e2fsck. SLUICE_DISK_CUTS sets how many cuts, and asks e2fsck each time.
//
// Then the same of a disk whose log is in a second store, which the cut takes away together with
// the first.
func TestCrashCuts(t *testing.T) {
	for _, second := range []bool{false, true} {
		t.Run(map[bool]string{false: "one store", true: "two stores"}[second],
			func(t *testing.T) { crashCuts(t, second) })
	}
}

func crashCuts(t *testing.T, second bool) {
	cuts, share := 180, 4
	if s := os.Getenv("SLUICE_DISK_CUTS"); s != "" {
		var err error
		if cuts, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		share = 1
	}
	ops, made := recordExt4(t)
	template, base := madeFileSystem(t, ops[:made], second)
	ops = ops[made:]
	all := cloneSim(template).client()
	whole := &cutRun{ops: ops, base: base, rng: rand.New(rand.NewPCG(0, 0)), gen: 1, second: second}
	if err := whole.play(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	n := all.requests()
	kinds := map[string]int{}
	checked := 0
	for i := range cuts {
		s := cloneSim(template)
		r := &cutRun{ops: ops, base: base, rng: rand.New(rand.NewPCG(uint64(i), 1)), gen: 1,
			second: second}
		if i%2 == 1 {
			r.cache = filepath.Join(t.TempDir(), "cache")
		}
		at := 1 + (i*n/cuts+i)%n
		kind := r.cut(t, s, at, dieBefore+verdict(i/2%2))
		kinds[kind]++
		got, err := reopen(t, s, r, i)
		if err == nil {
			_, err = r.check(sumsOf(got))
		}
		if err != nil {
			t.Fatalf("cut %d at request %d (%s): %v", i, at, kind, err)
		}
		if i%share == 0 {
			checked++
			fsckImage(t, got, fmt.Sprintf("cut %d at request %d (%s)", i, at, kind))
		}
	}
	t.Logf(
		"RESULT disk crash cuts: log in a second store %v: %d cuts in a run of %d requests, by kind %v; all a prefix, 0 acknowledged flushes lost; %d checked by e2fsck, all clean",
		second, cuts-kinds["none"], n, kinds, checked)
}

// TestCrashCutsNoticeALostObject has the store forget some log objects that it has acknowledged.
func TestCrashCutsNoticeALostObject(t *testing.T) {
	for _, second := range []bool{false, true} {
		noticeALostObject(t, second)
	}
}

func noticeALostObject(t *testing.T, second bool) {
	ops, made := recordExt4(t)
	template, base := madeFileSystem(t, ops[:made], second)
	r := &cutRun{ops: ops[made:], base: base, rng: rand.New(rand.NewPCG(1, 1)), gen: 1,
		second: second}
	s := cloneSim(template)
	c := s.client()
	ctx, cancel := context.WithCancel(testCtx(t))
	defer cancel()
	logs := 0
	c.judge = func(_ int, op, key string) verdict {
		if op == "match" && logs > 50 {
			return refuse // else a map would have what the log lacks, which is whole in memory
		}
		if kindOf(op, key) != "absent-log" {
			return pass
		}
		if logs++; logs == 60 {
			cancel()
			return dieBefore
		}
		if logs > 50 {
			return forget
		}
		return pass
	}
	if err := r.play(ctx, c); err == nil {
		t.Fatal("not cut")
	}
	got, err := reopen(t, s, r, 1)
	if err == nil {
		_, err = r.check(sumsOf(got))
	}
	if err == nil {
		t.Fatalf(
			"log in a second store %v: ten acknowledged log objects are gone, and nothing noticed",
			second)
	}
}

// cut plays until the client dies at its request at, and returns which kind that was.
func (r *cutRun) cut(t *testing.T, s *sim, at int, how verdict) (kind string) {
	t.Helper()
	kind = "none" // the run may take fewer requests this time
	c := s.client()
	ctx, cancel := context.WithCancel(testCtx(t))
	defer cancel()
	c.judge = func(n int, op, key string) verdict {
		if n != at {
			return pass
		}
		kind = kindOf(op, key)
		cancel()
		return how
	}
	if err := r.play(ctx, c); err != nil && !errs.Is(err, errs.Unavailable) {
		t.Fatalf("cut at request %d: %v", at, err)
	}
	return kind
}

// reopen attaches after a cut, every third time with another cut in the recovery, and returns the
// content.
func reopen(t *testing.T, s *sim, r *cutRun, i int) ([]byte, error) {
	t.Helper()
	if i%3 == 0 {
		again := *r
		again.ops = nil
		again.cut(t, s, 1+i%9, dieAfter)
		r.gen = again.gen
	}
	d, done, err := r.attach(testCtx(t), s.client())
	if err != nil {
		return nil, err
	}
	defer done()
	all := make([]byte, streamSize)
	return all, d.ReadAt(testCtx(t), all, 0)
}

// madeFileSystem returns a store with a closed disk that has the file system as it was made.
func madeFileSystem(t *testing.T, ops []deviceOp, second bool) (*sim, sums) {
	t.Helper()
	s := newSim()
	c, opts := s.client(), disk.CreateOptions{Size: streamSize}
	if second {
		opts.LogURL, opts.OpenLog = logURL, secondOf(c)
	}
	if _, err := disk.Create(testCtx(t), c, path, opts); err != nil {
		t.Fatal(err)
	}
	d := attach(t, c, path, 1, func(o *disk.AttachOptions) { o.OpenLog = opts.OpenLog })
	for i := range ops {
		if err := ops[i].apply(testCtx(t), d); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]byte, streamSize)
	if err := d.ReadAt(testCtx(t), all, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	return s, sumsOf(all)
}

// secondOf opens a client's second store: another part of the same one, so that its requests are
// counted and cut off with all others.
func secondOf(c *simClient) disk.OpenStore {
	return opener(under{c, "second/"})
}

// under is a store whose keys begin with a prefix in another.
type under struct {
	blob.Store
	prefix string
}

func (u under) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	return u.Store.Get(ctx, u.prefix+key, r)
}

func (u under) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return u.Store.PutIfAbsent(ctx, u.prefix+key, body)
}

func cloneSim(s *sim) *sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &sim{objs: maps.Clone(s.objs), tags: s.tags}
}

func kindOf(op, key string) string {
	for _, kind := range []string{"log", "map", "ckpt", "refs", "head", "boot", "seg"} {
		if filepath.Base(key) == kind || filepath.Base(filepath.Dir(key)) == kind ||
			filepath.Base(filepath.Dir(filepath.Dir(key))) == kind {
			return op + "-" + kind
		}
	}
	return op
}

func fsckImage(t *testing.T, content []byte, what string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := frontend.Fsck(t.Context(), image); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
}
