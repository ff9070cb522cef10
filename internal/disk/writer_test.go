package disk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func put(t *testing.T, ctx context.Context, d disk.Device, block int, n uint64) error {
	t.Helper()
	buf := make([]byte, 4096)
	binary.LittleEndian.PutUint64(buf, n)
	if err := d.WriteAt(ctx, buf, int64(block)*4096); err != nil {
		return err
	}
	return d.Flush(ctx)
}

func get(ctx context.Context, d disk.Device, block int) (uint64, error) {
	buf := make([]byte, 4096)
	err := d.ReadAt(ctx, buf, int64(block)*4096)
	return binary.LittleEndian.Uint64(buf), err
}

func wantKind(t *testing.T, what string, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Errorf("%s: %v (kind %q), want %q", what, err, errs.KindOf(err), kind)
	}
}

func TestGenerationRules(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<20)
	try := func(gen uint64, holder string) (*disk.Disk, error) {
		d, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: gen, Holder: holder})
		if err == nil {
			t.Cleanup(d.Abandon)
		}
		return d, err
	}
	first, err := try(5, "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = try(4, "b")
	wantKind(t, "older", err, errs.Fenced)
	for _, part := range []string{"generation 4", "generation 5", `"a"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q doesn't name %s", err, part)
		}
	}
	if errs.RemedyOf(err) == "" {
		t.Error("no remedy")
	}
	_, err = try(5, "b")
	wantKind(t, "same generation, other holder", err, errs.Conflict)
	if err := put(t, ctx, first, 0, 1); err != nil {
		t.Fatalf("refused attaches disturbed the writer: %v", err)
	}
	second, err := try(5, "a")
	if err != nil {
		t.Fatalf("same holder again: %v", err)
	}
	wantKind(t, "the holder's earlier session", put(t, ctx, first, 0, 2), errs.Fenced)
	if n, err := get(ctx, second, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	mustClose(t, second)
	_, err = try(5, "b")
	wantKind(t, "same generation, other holder, closed", err, errs.Conflict)
	_, err = try(4, "a")
	wantKind(t, "older, closed", err, errs.Fenced)
	if _, err = try(6, "b"); err != nil {
		t.Fatal(err)
	}
}

func TestAZombieIsFenced(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	zombie := attach(t, s.client(), path, 1)
	if err := put(t, ctx, zombie, 0, 1); err != nil {
		t.Fatal(err)
	}
	next := attach(t, s.client(), path, 2)
	if n, err := get(ctx, next, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	wantKind(t, "flush", put(t, ctx, zombie, 0, 66), errs.Fenced)
	select {
	case <-zombie.Stopped():
	default:
		t.Error("Fenced is open")
	}
	wantKind(t, "err", zombie.Err(), errs.Fenced)
	buf := make([]byte, 4096)
	wantKind(t, "write", zombie.WriteAt(ctx, buf, 0), errs.Fenced)
	wantKind(t, "trim", zombie.Trim(ctx, 0, 4096), errs.Fenced)
	wantKind(t, "read", zombie.ReadAt(ctx, buf, 0), errs.Fenced)
	_, err := zombie.Checkpoint(ctx, "x")
	wantKind(t, "checkpoint", err, errs.Fenced)
	wantKind(t, "close", zombie.Close(ctx), errs.Fenced)
	if n, err := get(ctx, next, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	mustClose(t, next)
}

func TestAZombieWithNothingDirtyCannotCloseOrCheckpoint(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	a := attach(t, s.client(), path, 1)
	b := attach(t, s.client(), path, 2)
	_, err := a.Checkpoint(ctx, "stolen")
	wantKind(t, "checkpoint", err, errs.Fenced)
	wantKind(t, "close", a.Close(ctx), errs.Fenced)
	if err := put(t, ctx, b, 0, 1); err != nil {
		t.Fatal(err)
	}
	mustClose(t, b)
}

func TestAZombieThatOnlyReadsStops(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	zombie := attach(t, s.client(), path, 1,
		func(o *disk.AttachOptions) { o.Revalidate = 5 * time.Millisecond })
	attach(t, s.client(), path, 2)
	waitFor(t, "end of reads", func() bool {
		_, err := get(ctx, zombie, 0)
		return errs.Is(err, errs.Fenced)
	})
}

func TestReadsOfAWriterThatCannotAskStop(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, func(o *disk.AttachOptions) {
		o.Revalidate, o.StallTimeout = 5*time.Millisecond, 30*time.Millisecond
	})
	c.setJudge(func(int, string, string) verdict { return refuse })
	waitFor(t, "stale reads", func() bool {
		_, err := get(ctx, d, 0) // needs no request: nothing is mapped
		return errs.Is(err, errs.Unavailable)
	})
	c.setJudge(nil)
	waitFor(t, "recovery", func() bool {
		_, err := get(ctx, d, 0)
		return err == nil
	})
}

// lateWrite has the zombie's log object arrive before or after the next attach.
func lateWrite(t *testing.T, dropFence,
	before bool) (zombieErr error, got uint64) { //nolint:staticcheck // both are results
	ctx := testCtx(t)
	s := newSim()
	s.dropFence = dropFence
	create(t, s.client(), path, 1<<20)
	c := s.client()
	zombie := attach(t, c, path, 1)
	if err := put(t, ctx, zombie, 0, 1); err != nil {
		t.Fatal(err)
	}
	// The next log object is held up until the judge lets it go.
	c.setJudge(func(_ int, op, key string) verdict {
		if op == "absent" && strings.Contains(key, "/log/") {
			return late
		}
		return pass
	})
	flushed := make(chan error, 1)
	go func() { flushed <- put(t, ctx, zombie, 0, 2) }()
	waitFor(t, "held request", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.pending) > 0
	})
	if before {
		c.release()
	}
	next := attach(t, s.client(), path, 2)
	if !before {
		c.release()
	}
	c.setJudge(nil)
	zombieErr = <-flushed
	got, err := get(ctx, next, 0)
	if err != nil {
		t.Fatal(err)
	}
	return zombieErr, got
}

func TestALateLogObjectOfAZombie(t *testing.T) {
	err, got := lateWrite(t, false, true)
	if err != nil || got != 2 {
		t.Errorf("arrived before the fence: %v, the next writer sees %d", err, got)
	}
	err, got = lateWrite(t, false, false)
	wantKind(t, "arrived after the fence", err, errs.Fenced)
	if got != 1 {
		t.Errorf("the next writer sees %d", got)
	}
}

// TestADroppedFenceIsNoticed shows that the check above can fail: over a store that loses fences
// the zombie is told that its write is durable, and the next writer doesn't have it.
func TestADroppedFenceIsNoticed(t *testing.T) {
	if err, got := lateWrite(t, true, false); err != nil || got != 1 {
		t.Fatalf(
			"zombie: %v, next writer sees %d; without a fence this must lose an acknowledged write",
			err, got)
	}
}

// TestARelentlessWriterIsCaught attaches beside a writer that never pauses.
func TestARelentlessWriterIsCaught(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	old := attach(t, s.client(), path, 1,
		func(o *disk.AttachOptions) { o.ObjectBytes, o.InFlight = 4096, 8 })
	var acked uint64
	done := make(chan error, 1)
	go func() {
		for n := uint64(1); ; n++ {
			if err := put(t, ctx, old, 0, n); err != nil {
				done <- err
				return
			}
			acked = n
		}
	}()
	slow := s.client()
	slow.latency = 2 * time.Millisecond
	next := attach(t, slow, path, 2)
	wantKind(t, "old writer", <-done, errs.Fenced)
	if n, err := get(ctx, next, 0); n < acked || n > acked+1 || err != nil {
		t.Fatalf("acknowledged %d, found %d, %v", acked, n, err)
	}
}

// TestAttachersRace has three processes attach again and again, each counting a register up as far
// as it gets. No acknowledged step may be lost, and none may be made twice.
func TestAttachersRace(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	var mu sync.Mutex
	gen := uint64(0)
	acked := map[uint64]string{}
	var highest uint64
	session := func(who string, rng *rand.Rand) error {
		mu.Lock()
		gen++
		g := gen
		mu.Unlock()
		d, err := disk.Attach(ctx, s.client(), path, disk.AttachOptions{Generation: g, Holder: who})
		if errs.Is(err, errs.Fenced) {
			return nil
		}
		if err != nil {
			return err
		}
		defer d.Abandon()
		for range 1 + rng.IntN(6) {
			n, err := get(ctx, d, 0)
			if err == nil {
				err = put(t, ctx, d, 0, n+1)
			}
			if errs.Is(err, errs.Fenced) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			if other, ok := acked[n+1]; ok {
				err = fmt.Errorf("%d was acknowledged to %s and to %s", n+1, other, who)
			}
			acked[n+1] = who
			highest = max(highest, n+1)
			mu.Unlock()
			if err != nil {
				return err
			}
		}
		if rng.IntN(2) == 0 {
			if err := d.Close(ctx); err != nil && !errs.Is(err, errs.Fenced) {
				return err
			}
		}
		return nil
	}
	done := make(chan error, 3)
	for w := range 3 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			for range 25 {
				if err := session(fmt.Sprint("w", w), rng); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	d := attach(t, s.client(), path, gen+1)
	n, err := get(ctx, d, 0)
	if err != nil || n < highest || len(acked) == 0 {
		t.Fatalf("register is %d, %d was acknowledged; %v", n, highest, err)
	}
	t.Logf("%d steps acknowledged by %d sessions", len(acked), gen)
}

func TestAStalledStoreGivesEIOAndRecovers(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 8<<20)
	c := s.client()
	d := attach(t, c, path, 1, small, func(o *disk.AttachOptions) {
		o.StallTimeout, o.Revalidate, o.DirtyBytes = 60*time.Millisecond, -1, 128<<10
	})
	c.setJudge(func(_ int, op, _ string) verdict {
		if op == "get" {
			return pass
		}
		return refuse
	})
	wantKind(t, "flush", put(t, ctx, d, 0, 1), errs.Unavailable)
	var err error
	wrote := 1
	for ; err == nil && wrote < 1000; wrote++ {
		err = d.WriteAt(ctx, make([]byte, 4096), int64(wrote)*4096)
	}
	wantKind(t, "write into full memory", err, errs.Unavailable)
	if b := d.Stats().DirtyBytes; b > 256<<10 {
		t.Errorf("%d dirty bytes", b)
	}
	if n, err := get(ctx, d, 0); n != 1 || err != nil {
		t.Errorf("dirty data can't be read: %d %v", n, err)
	}
	c.setJudge(nil)
	waitFor(t, "recovery", func() bool { return d.Flush(ctx) == nil })
	mustClose(t, d)
	d = attach(t, c, path, 2)
	if n, err := get(ctx, d, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func TestACloseThatCouldNotReachTheStoreCanBeRepeated(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 1<<20)
	c := s.client()
	d := attach(t, c, path, 1, func(o *disk.AttachOptions) {
		o.StallTimeout = 30 * time.Millisecond
	})
	if err := put(t, ctx, d, 0, 7); err != nil {
		t.Fatal(err)
	}
	c.setJudge(func(_ int, op, key string) verdict {
		if op == "match" {
			return loseReply
		}
		return refuse
	})
	wantKind(t, "close", d.Close(ctx), errs.Unavailable)
	wantKind(t, "write", put(t, ctx, d, 0, 8), errs.Invalid)
	c.setJudge(nil)
	mustClose(t, d)
	mustClose(t, d)
	d = attach(t, c, path, 2)
	if n, err := get(ctx, d, 0); n != 7 || err != nil || d.Stats().Replayed != 0 {
		t.Fatal(n, err, d.Stats().Replayed)
	}
}
