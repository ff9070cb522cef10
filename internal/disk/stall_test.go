package disk_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// weather is a store's behaviour, changed as a test goes on.
type weather struct {
	blob.Store

	mu    sync.Mutex
	is    func(op decorate.Op) error // nil: fine
	waits chan struct{}              // not nil: requests hang until it is closed
	asked []time.Time
	peak  int // writes under way at a time, at most
	now   int
}

func newWeather() *weather {
	w := &weather{}
	w.Store = decorate.Intercept(memblob.New(), w.before)
	return w
}

func (w *weather) before(ctx context.Context, op decorate.Op, _ string) error {
	w.mu.Lock()
	w.asked = append(w.asked, time.Now())
	is, waits := w.is, w.waits
	if op == decorate.OpPutIfAbsent {
		w.now++
		w.peak = max(w.peak, w.now)
		defer func() {
			w.mu.Lock()
			w.now--
			w.mu.Unlock()
		}()
	}
	w.mu.Unlock()
	if waits != nil {
		select {
		case <-waits:
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "no answer")
		}
	}
	time.Sleep(time.Millisecond)
	if is != nil {
		return is(op)
	}
	return nil
}

func (w *weather) set(is func(op decorate.Op) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.is, w.asked, w.peak = is, nil, 0
}

// hang makes requests hang until the function that it returns is called.
func (w *weather) hang() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits, w.asked = make(chan struct{}), nil
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		close(w.waits)
		w.waits = nil
	}
}

func (w *weather) requests() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// always answers every request that way, but for reads if only is set.
func always(err error, writesOnly bool) func(decorate.Op) error {
	return func(op decorate.Op) error {
		if writesOnly && (op == decorate.OpGet || op == decorate.OpList) {
			return nil
		}
		return err
	}
}

// syncLog keeps log lines.
type syncLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// inWeather runs a test in fake time with a disk of 8 MiB.
func inWeather(t *testing.T, change func(*disk.AttachOptions),
	test func(t *testing.T, w *weather, d *disk.Disk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWeather()
		if _, err := disk.Create(t.Context(), w, path,
			disk.CreateOptions{Size: 8 << 20}); err != nil {
			t.Fatal(err)
		}
		opts := disk.AttachOptions{Generation: 1, Holder: "vm"}
		opts.Revalidate = -1
		if change != nil {
			change(&opts)
		}
		d, err := disk.Attach(t.Context(), w, path, opts)
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, d)
		d.Abandon()
	})
}

// during runs f while something else goes on, and fails the test with its error.
func during(t *testing.T, f func() error, meanwhile func()) {
	t.Helper()
	var g errgroup.Group
	g.Go(f)
	meanwhile()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAStallIsToldOnceAndEndsByItself(t *testing.T) {
	var log syncLog
	logged := func(o *disk.AttachOptions) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }
	inWeather(t, logged, func(t *testing.T, w *weather, d *disk.Disk) {
		if s, _ := d.Stalled(); s != nil {
			t.Fatalf("stalled before anything: %+v", s)
		}
		end, began := w.hang(), time.Now()
		during(t, func() error { return put(t, t.Context(), d, 0, 1) }, func() {
			_, changed := d.Stalled()
			<-changed
			if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
				t.Errorf("noticed after %v", took)
			}
			time.Sleep(5 * time.Second)
			s, changed := d.Stalled()
			if s == nil || !strings.HasPrefix(s.Operation, "write "+path+"/log/") ||
				s.Since.Sub(began) > time.Millisecond || s.HeldSince.IsZero() ||
				s.Kind != errs.Unavailable || s.Reason == "" || s.Remedy == "" {
				t.Fatalf("stalled: %+v", s)
			}
			if st := d.Stats(); st.Stall == nil || st.Stall.Operation != s.Operation {
				t.Errorf("stats: %+v", st.Stall)
			}
			end()
			<-changed
		})
		if s, _ := d.Stalled(); s != nil {
			t.Errorf("still stalled: %+v", s)
		}
		if warned, told := log.count("the store has stalled"),
			log.count("the store answers again"); warned != 1 || told != 1 {
			t.Errorf("told %d times that it stalls and %d times that it is over", warned, told)
		}
	})
}

// TestAStoreThatAnswersIsNotStalled: slow is not stalled, as long as one thing after the other gets
// done.
func TestAStoreThatAnswersIsNotStalled(t *testing.T) {
	inWeather(t, small, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(func(decorate.Op) error { time.Sleep(1500 * time.Millisecond); return nil })
		during(t, func() error {
			for i := range 64 { // four objects
				if err := d.WriteAt(t.Context(), make([]byte, 4096), int64(i)*4096); err != nil {
					return err
				}
			}
			return d.Flush(t.Context())
		}, func() {
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				if s, _ := d.Stalled(); s != nil {
					t.Fatalf("stalled: %+v", s)
				}
			}
		})
	})
}

func TestAStoreThatFailsIsAskedSeldom(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(always(errs.New(errs.Unavailable, "internal error"), false))
		wantKind(t, "flush", put(t, t.Context(), d, 0, 1), errs.Unavailable) // a minute later
		if n := len(w.requests()); n < 20 || n > 150 {
			t.Errorf("%d requests in a minute", n)
		}
	})
}

// TestAFlushThatFailedIsNotForgotten: what a failed flush had to write is part of every later one,
// so that one that succeeds means what it says, also of what was written before the failure.
func TestAFlushThatFailedIsNotForgotten(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(always(errs.New(errs.Unavailable, "internal error"), false))
		wantKind(t, "flush", put(t, t.Context(), d, 0, 1), errs.Unavailable)
		wantKind(t, "flush of nothing new", d.Flush(t.Context()), errs.Unavailable)
		w.set(nil)
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.Abandon() // as a crash would, right after the flush
		again, err := disk.Attach(t.Context(), w, path,
			disk.AttachOptions{Generation: 2, Holder: "next"})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Abandon()
		if n, err := get(t.Context(), again, 0); n != 1 || err != nil {
			t.Errorf("read %d: %v", n, err)
		}
	})
}

// TestHeldIO: while nobody would notice, a request waits for as long as it takes, and not a moment
// longer.
func TestHeldIO(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		if err := put(t, t.Context(), d, 9, 9); err != nil {
			t.Fatal(err)
		}
		end := w.hang()
		during(t, func() error { return put(t, t.Context(), d, 0, 1) }, func() {
			time.Sleep(30 * time.Second)
			d.HoldIO(true)
			d.HoldIO(true)
			time.Sleep(time.Hour)
			end()
		})
		d.HoldIO(false)
		defer w.hang()()
		began := time.Now()
		wantKind(t, "flush", put(t, t.Context(), d, 0, 2), errs.Unavailable)
		if took := time.Since(began); took < 59*time.Second || took > 62*time.Second {
			t.Errorf("the bound was %v after a hold", took)
		}
	})
}

// TestReadsAreHeldToo, and a read that began before the hold has the rest of its time after it.
func TestReadsAreHeldToo(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		if err := put(t, t.Context(), d, 0, 1); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		d, err := disk.Attach(t.Context(), w, path,
			disk.AttachOptions{Generation: 2, Holder: "next"})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Abandon()
		w.set(always(errs.New(errs.Denied, "access denied"), false))
		var g errgroup.Group
		g.Go(func() error {
			n, err := get(t.Context(), d, 0)
			if n != 1 {
				t.Errorf("read %d", n)
			}
			return err
		})
		time.Sleep(40 * time.Second)
		d.HoldIO(true)
		time.Sleep(time.Hour)
		if s, _ := d.Stalled(); s == nil || s.Kind != errs.Denied || s.HeldSince.IsZero() ||
			!strings.HasPrefix(s.Operation, "read ") {
			t.Errorf("stalled: %+v", s)
		}
		d.HoldIO(false)
		time.Sleep(15 * time.Second)
		w.set(nil)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestAStallLeftBehindEnds: readers gave up, and nobody asks for anything any more.
func TestAStallLeftBehindEnds(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		if err := put(t, t.Context(), d, 0, 1); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		opts := disk.AttachOptions{Generation: 2, Holder: "next"}
		opts.Revalidate, opts.BootWindow = -1, -1
		d, err := disk.Attach(t.Context(), w, path, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Abandon()
		end := w.hang()
		_, err = get(t.Context(), d, 0)
		wantKind(t, "read", err, errs.Unavailable)
		time.Sleep(10 * time.Minute)
		s, changed := d.Stalled()
		if s == nil || !s.HeldSince.IsZero() {
			t.Errorf("stalled: %+v", s)
		}
		end()
		began := time.Now()
		<-changed
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("seen after %v", took)
		}
		if n, err := get(t.Context(), d, 0); n != 1 || err != nil {
			t.Errorf("read %d: %v", n, err)
		}
	})
}

// TestAFullStoreAndOneThatRefusesAreNamed, and the disk goes on once they are put right.
func TestAFullStoreAndOneThatRefusesAreNamed(t *testing.T) {
	for kind, words := range map[errs.Kind]string{errs.Exhausted: "takes no more",
		errs.Denied: "refuses access"} {
		t.Run(string(kind), func(t *testing.T) {
			inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
				w.set(always(errs.New(kind, "said the store").WithRemedy("do this"), true))
				err := put(t, t.Context(), d, 0, 1)
				wantKind(t, "flush", err, kind)
				if !strings.Contains(err.Error(), words) ||
					!strings.Contains(err.Error(), "said the store") ||
					!strings.HasPrefix(errs.RemedyOf(err), "do this") {
					t.Errorf("%v; %s", err, errs.RemedyOf(err))
				}
				s, _ := d.Stalled()
				if s == nil || s.Kind != kind || !strings.Contains(s.Reason, words) ||
					s.Remedy != "do this" {
					t.Errorf("stalled: %+v", s)
				}
				if err := d.Err(); err != nil {
					t.Fatal(err)
				}
				w.set(nil)
				if err := d.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				if n, err := get(t.Context(), d, 0); n != 1 || err != nil {
					t.Errorf("read %d: %v", n, err)
				}
			})
		})
	}
}

// TestAStoreThatAsksForLessGetsLess: no request before the time that it names, fewer uploads at a
// time, and as many as before when it doesn't mind any more.
func TestAStoreThatAsksForLessGetsLess(t *testing.T) {
	inWeather(t, small, func(t *testing.T, w *weather, d *disk.Disk) {
		write := func(blocks int) error {
			for i := range blocks {
				if err := d.WriteAt(t.Context(), make([]byte, 4096), int64(i)*4096); err != nil {
					return err
				}
			}
			return d.Flush(t.Context())
		}
		slow := &blob.Throttled{After: 5 * time.Second}
		w.set(always(errs.Wrap(errs.Unavailable, slow, "503"), true))
		began := time.Now()
		during(t, func() error { return write(256) }, func() {
			time.Sleep(22 * time.Second)
			waves := map[int64]int{}
			for _, at := range w.requests() {
				waves[at.Sub(began).Milliseconds()/5000]++
			}
			if len(waves) > 5 || len(w.requests()) > 5*4 {
				t.Errorf("asked %v times in each five seconds", waves)
			}
			if st := d.Stats(); st.Uploads != 1 || st.Throttled == 0 {
				t.Errorf("%d uploads at a time after %d refusals", st.Uploads, st.Throttled)
			}
			w.set(nil)
		})
		for range 8 {
			if err := write(256); err != nil {
				t.Fatal(err)
			}
		}
		if st := d.Stats(); st.Uploads != 4 {
			t.Errorf("%d uploads at a time after it was well again", st.Uploads)
		}
	})
}

func TestAnUnboundedDiskWaits(t *testing.T) {
	never := func(o *disk.AttachOptions) { o.StallTimeout = -1 }
	inWeather(t, never, func(t *testing.T, w *weather, d *disk.Disk) {
		end := w.hang()
		during(t, func() error { return put(t, t.Context(), d, 0, 1) }, func() {
			time.Sleep(24 * time.Hour)
			end()
		})
	})
}
