package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// lies is a judge under which a store does something else than it says with the first writes of
// each kind.
type lies struct {
	mu   sync.Mutex
	what map[string]verdict // by part of the key
	left int                // of each kind
	told map[string]int
}

func (l *lies) judge(_ int, op, key string) verdict {
	if op != "absent" {
		return pass
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for part, v := range l.what {
		if strings.Contains(key, part) && l.told[part] < l.left {
			l.told[part]++
			return v
		}
	}
	return pass
}

func lie(left int, what map[string]verdict) *lies {
	return &lies{what: what, left: left, told: map[string]int{}}
}

// lazy makes nothing happen by itself.
func lazy(o *disk.AttachOptions) {
	o.Revalidate, o.SealInterval, o.CheckpointInterval = -1, time.Hour, time.Hour
	o.CheckpointObjects, o.BootWindow, o.CompactBytes = 1000, -1, -1
}

// TestWhatTheStoreOnlySaidItStoredIsWrittenAgain has a store acknowledge objects of every kind that
// it doesn't keep, or keeps the half of, and then list wrongly too. The disk must find that, and be
// whole.
func TestWhatTheStoreOnlySaidItStoredIsWrittenAgain(t *testing.T) {
	for _, part := range []string{"/log/", "/pages", "/root", "/seg/"} {
		for _, v := range []verdict{forget, halve} {
			for _, writes := range []int{3, 40} { // looked at one by one, and listed
				for _, blind := range []bool{false, true} {
					t.Run(fmt.Sprint(part[1:], " ", v, " ", writes, " ", blind),
						func(t *testing.T) {
							writtenAgain(t, part, v, writes, blind)
						})
				}
			}
		}
	}
}

func writtenAgain(t *testing.T, part string, v verdict, writes int, blind bool) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 4<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy)
	l := lie(2, map[string]verdict{part: v})
	c.setJudge(func(n int, op, key string) verdict {
		if op == "list" && blind {
			return forget
		}
		return l.judge(n, op, key)
	})
	want := make([]byte, 4<<20)
	rng := rand.New(rand.NewPCG(1, uint64(writes)))
	for i := range writes {
		p := want[i*8192:][:8192]
		for k := range p {
			p[k] = byte(rng.Uint32())
		}
		if err := d.WriteAt(ctx, p, int64(i)*8192); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if part == "/seg/" {
		if _, err := d.Compact(ctx, disk.CompactOptions{Target: 1.01}); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	st := d.Stats()
	if l.told[part] == 0 || st.Lost != uint64(l.told[part]) || st.UnprovenBytes != 0 {
		t.Errorf("the store lost %d objects; stats say %d, and %d bytes unproven", l.told[part],
			st.Lost, st.UnprovenBytes)
	}
	checkAll(t, ctx, attach(t, s.client(), path, 2), want)
}

// TestALostObjectIsReadAllTheSame reads what the store has lost before anything has looked for it.
func TestALostObjectIsReadAllTheSame(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 64<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy,
		func(o *disk.AttachOptions) { o.FrameBytes, o.ReadAhead = 1, -1 })
	l := lie(1, map[string]verdict{"/log/": forget})
	c.setJudge(l.judge)
	for i := range 40 { // more than the frames in memory
		if err := put(t, ctx, d, 16*i, uint64(i)+1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		if n, err := get(ctx, d, 16*i); n != uint64(i)+1 || err != nil {
			t.Fatal(i, n, err)
		}
	}
	if d.Stats().Lost != 1 {
		t.Error("nobody noticed")
	}
	mustClose(t, d)
}

// TestAStoreThatGoesOnLyingIsAStall has a store keep no log object at all, and say that it does.
// Nothing may be thrown away, writes must wait in the end, and all be there once the store is well.
func TestAStoreThatGoesOnLyingIsAStall(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 64<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy, func(o *disk.AttachOptions) {
		o.ObjectBytes, o.DirtyBytes, o.StallAfter, o.StallTimeout = 64<<10, 128<<10,
			20*time.Millisecond, 300*time.Millisecond
	})
	l := lie(1<<30, map[string]verdict{"/log/": forget})
	c.setJudge(l.judge)
	want := make([]byte, 64<<20)
	fill(want, 5)
	written, err := 0, error(nil)
	for ; written < len(want) && err == nil; written += 32 << 10 {
		if err = d.WriteAt(ctx, want[written:][:32<<10], int64(written)); err == nil {
			err = d.Flush(ctx)
		}
	}
	wantKind(t, "writing to a store that keeps nothing", err, errs.Unavailable)
	if written > 2<<20 {
		t.Errorf("%d bytes were taken, and nothing of it stored", written)
	}
	waitFor(t, "the stall's name", func() bool {
		st, _ := d.Stalled()
		return st != nil && strings.Contains(st.Reason, "acknowledged") &&
			strings.Contains(st.Remedy, "don't trust")
	})
	wantKind(t, "close", d.Close(ctx), errs.Unavailable)
	c.setJudge(nil)
	waitFor(t, "close", func() bool { return d.Close(ctx) == nil })
	got := make([]byte, written)
	if err := attach(t, s.client(), path, 2).ReadAt(ctx, got[:written-(32<<10)], 0); err != nil {
		t.Fatal(err)
	}
	for i := range got[:written-(32<<10)] {
		if got[i] != want[i] {
			t.Fatalf("byte %d of %d is not what was acknowledged", i, written)
		}
	}
}

// TestAnAcknowledgedObjectThatIsAnothersFences has the store acknowledge a log object whose slot
// has another's.
func TestAnAcknowledgedObjectThatIsAnothersFences(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy)
	c.setJudge(lie(1, map[string]verdict{"/log/": forget}).judge)
	if err := put(t, ctx, d, 0, 1); err != nil {
		t.Fatal(err)
	}
	attach(t, s.client(), path, 2) // which fences the slot
	wantKind(t, "settle", d.Settle(ctx), errs.Fenced)
}

// TestALogThatLostItsMiddleIsNotCut takes an acknowledged object out of a log of which later ones
// are there. An attach must refuse, by name, and change nothing that keeps it from being mended;
// holes of objects that were in flight are none of its business.
func TestALogThatLostItsMiddleIsNotCut(t *testing.T) {
	for _, far := range []int{1, 3, 40} { // objects after the lost one
		t.Run(fmt.Sprint(far), func(t *testing.T) {
			ctx := testCtx(t)
			s := newSim()
			create(t, s.client(), path, 1<<20)
			d := attach(t, s.client(), path, 1, lazy)
			for i := range 4 + far {
				if err := put(t, ctx, d, i, uint64(i)+1); err != nil {
					t.Fatal(err)
				}
			}
			d.Abandon()
			lost := s.keys("/log/")[3]
			object := s.objs[lost]
			delete(s.objs, lost)
			if r := fsckOf(t, s); !strings.Contains(r, lost) {
				t.Errorf("fsck says %s", r)
			}
			_, err := disk.Attach(ctx, s.client(), path, disk.AttachOptions{Generation: 2})
			wantKind(t, "attach", err, errs.Corrupt)
			if err != nil && (!strings.Contains(err.Error(), lost) || errs.RemedyOf(err) == "") {
				t.Errorf("%v (%s) doesn't name %s, or what to do", err, errs.RemedyOf(err), lost)
			}
			s.objs[lost] = object
			d = attach(t, s.client(), path, 3)
			for i := range 4 + far {
				if n, err := get(ctx, d, i); n != uint64(i)+1 || err != nil {
					t.Fatal(i, n, err)
				}
			}
			mustClose(t, d)
		})
	}
}

// TestALogThatLostItsMiddleAndIsListedWrong is the same with a listing that shows nothing: the
// objects nearby are read anyway.
func TestALogThatLostItsMiddleAndIsListedWrong(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	d := attach(t, s.client(), path, 1, lazy)
	for i := range 5 {
		if err := put(t, ctx, d, i, 1); err != nil {
			t.Fatal(err)
		}
	}
	d.Abandon()
	delete(s.objs, s.keys("/log/")[2])
	c := s.client()
	c.setJudge(func(_ int, op, _ string) verdict {
		if op == "list" {
			return forget
		}
		return pass
	})
	_, err := disk.Attach(ctx, c, path, disk.AttachOptions{Generation: 2})
	wantKind(t, "attach", err, errs.Corrupt)
}

// TestAHoleOfWhatWasInFlightIsNone kills a writer of whose parallel uploads the first never
// arrives.
func TestAHoleOfWhatWasInFlightIsNone(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy,
		func(o *disk.AttachOptions) { o.ObjectBytes, o.InFlight = 4096, 4 })
	if err := put(t, ctx, d, 0, 1); err != nil {
		t.Fatal(err)
	}
	c.setJudge(func(_ int, op, key string) verdict {
		if strings.HasSuffix(key, "0002") && op == "absent" {
			return refuse
		}
		return pass
	})
	for i := range 4 {
		if err := d.WriteAt(ctx, make([]byte, 4096), int64(i)*4096); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the later objects", func() bool { return len(s.keys("/log/")) == 4 })
	d.Abandon()
	d = attach(t, s.client(), path, 2)
	if n, err := get(ctx, d, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	mustClose(t, d)
}

// TestAnIdleDiskProvesNothing waits beside a disk whose last write is proven.
func TestAnIdleDiskProvesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(testCtx(t), 20*time.Second)
	defer cancel()
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, lazy,
		func(o *disk.AttachOptions) { o.CheckpointInterval = 10 * time.Millisecond })
	if err := put(t, ctx, d, 0, 1); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the proof", func() bool {
		return d.Stats().UnprovenBytes == 0 &&
			d.Stats().MapWrites > 0
	})
	if n := requestsOf(c, func() { time.Sleep(200 * time.Millisecond) }); n != 0 {
		t.Errorf("%d requests of an idle disk", n)
	}
	mustClose(t, d)
}

// fsckOf returns what a check of the disk finds.
func fsckOf(t *testing.T, s *sim) string {
	t.Helper()
	r, err := fsck.Check(testCtx(t), s.client(), path, fsck.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.Damage)
}
