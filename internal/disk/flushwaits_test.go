package disk_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/disk/journal/journaltest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// waited is what flushes waited for since something began.
type waited map[disk.Wait]time.Duration

// waitedDuring returns what flushes waited for while f ran. It holds that the waits add up to the
// flushes, and that each flush counts for each.
func waitedDuring(t *testing.T, d *disk.Disk, f func()) waited {
	t.Helper()
	a := d.Stats()
	f()
	b := d.Stats()
	all, sum := waited{}, time.Duration(0)
	for _, name := range disk.Waits() {
		all[name] = b.FlushWaits[name].Sum - a.FlushWaits[name].Sum
		sum += all[name]
		if n, want := total(b.FlushWaits[name].Times), total(b.FlushTimes); n != want {
			t.Errorf("%s: %d of %d flushes are counted", name, n, want)
		}
	}
	if whole := b.FlushTime - a.FlushTime; (whole - sum).Abs() > time.Millisecond {
		t.Errorf("flushes took %v, and waited %v", whole, sum)
	}
	return all
}

func total(h disk.Histogram) (n uint64) {
	for _, x := range h {
		n += x
	}
	return n
}

// is fails the test unless each wait is as long as it is wanted, and all others are nothing.
func (w waited) is(t *testing.T, want waited) {
	t.Helper()
	for name, got := range w {
		if (got - want[name]).Abs() > 100*time.Millisecond {
			t.Errorf("%s: %v, want %v", name, got, want[name])
		}
	}
}

// slowPuts makes writes of a store take that long, the first few of them.
func slowPuts(took time.Duration, first int) func(decorate.Op) error {
	var mu sync.Mutex
	return func(op decorate.Op) error {
		if op != decorate.OpPutIfAbsent {
			return nil
		}
		mu.Lock()
		first--
		slow := first >= 0
		mu.Unlock()
		if slow {
			time.Sleep(took)
		}
		return nil
	}
}

const always1 = 1 << 30

func TestASlowStoreIsWaitedForAsStore(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(slowPuts(3*time.Second, always1))
		waitedDuring(t, d, func() { mustPut(t, d, 0) }).
			is(t, waited{disk.WaitStore: 3 * time.Second})
		// one that comes when the other is half done waits for the rest
		w.set(slowPuts(4*time.Second, always1))
		waitedDuring(t, d, func() {
			during(t, func() error { return put(t, t.Context(), d, 1, 1) }, func() {
				time.Sleep(time.Second)
				if err := d.Flush(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}).is(t, waited{disk.WaitStore: 7 * time.Second})
	})
}

// TestAStoreThatFailsIsWaitedForAsStore: pauses after its failures are its own.
func TestAStoreThatFailsIsWaitedForAsStore(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(always(errs.New(errs.Unavailable, "internal error"), false))
		waitedDuring(t, d, func() {
			wantKind(t, "flush", put(t, t.Context(), d, 0, 1), errs.Unavailable)
		}).is(t, waited{disk.WaitStore: time.Minute})
		w.set(nil)
	})
}

// TestAFlushThatGivesUpTellsItsWaits: also one whose object was never sent.
func TestAFlushThatGivesUpTellsItsWaits(t *testing.T) {
	one := func(o *disk.AttachOptions) { o.InFlight = 1 }
	inWeather(t, one, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(always(errs.New(errs.Unavailable, "internal error"), false))
		givesUp := func(block int) error {
			wantKind(t, "flush", put(t, t.Context(), d, block, 1), errs.Unavailable)
			return nil
		}
		waitedDuring(t, d, func() {
			during(t, func() error { return givesUp(0) }, func() {
				time.Sleep(time.Second)
				_ = givesUp(1)
			})
		}).is(t, waited{disk.WaitStore: time.Minute, disk.WaitQueue: time.Minute})
		w.set(nil)
	})
}

func TestAStoreThatAsksForLessIsWaitedForAsPace(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		var once sync.Once
		w.set(func(op decorate.Op) (err error) {
			if op == decorate.OpPutIfAbsent {
				once.Do(func() {
					time.Sleep(2 * time.Second)
					err = errs.Wrap(errs.Unavailable,
						&blob.Throttled{After: 10 * time.Second}, "slow down")
				})
			}
			return err
		})
		got := waitedDuring(t, d, func() { mustPut(t, d, 0) })
		if pace := got[disk.WaitPace]; pace < 10*time.Second || pace > 11*time.Second {
			t.Errorf("pace: %v", pace)
		}
		delete(got, disk.WaitPace)
		got.is(t, waited{disk.WaitStore: 2 * time.Second})
	})
}

// TestFewerUploadsAreWaitedForAsPace: after a refusal two uploads may run where four were meant to.
func TestFewerUploadsAreWaitedForAsPace(t *testing.T) {
	inWeather(t, small, func(t *testing.T, w *weather, d *disk.Disk) {
		var once sync.Once
		w.set(func(op decorate.Op) (err error) {
			once.Do(func() {
				err = errs.Wrap(errs.Unavailable, &blob.Throttled{After: time.Second}, "slow down")
			})
			return err
		})
		mustPut(t, d, 0)
		if n := d.Stats().Uploads; n != 2 {
			t.Fatalf("%d uploads may run", n)
		}
		w.set(slowPuts(3*time.Second, always1))
		var g errgroup.Group
		got := waitedDuring(t, d, func() {
			for i := range 3 {
				g.Go(func() error { return put(t, t.Context(), d, 1+i, 1) })
				time.Sleep(500 * time.Millisecond)
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
		got.is(t, waited{disk.WaitPace: 2 * time.Second, disk.WaitStore: 9 * time.Second})
	})
}

// TestEarlierUploadsAreWaitedForAsQueue: before an upload when all are taken, and after it while an
// earlier object isn't there.
func TestEarlierUploadsAreWaitedForAsQueue(t *testing.T) {
	one := func(o *disk.AttachOptions) { o.InFlight = 1 }
	inWeather(t, one, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(slowPuts(3*time.Second, always1))
		waitedDuring(t, d, func() {
			during(t, func() error { return put(t, t.Context(), d, 0, 1) }, func() {
				time.Sleep(time.Second)
				mustPut(t, d, 1)
			})
		}).is(t, waited{disk.WaitStore: 6 * time.Second, disk.WaitQueue: 2 * time.Second})
	})
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(slowPuts(5*time.Second, 1))
		waitedDuring(t, d, func() {
			during(t, func() error { return put(t, t.Context(), d, 0, 1) }, func() {
				time.Sleep(time.Second)
				mustPut(t, d, 1)
			})
		}).is(t, waited{disk.WaitStore: 5 * time.Second, disk.WaitQueue: 4 * time.Second})
	})
}

func TestAMapThatCantBeWrittenIsWaitedForAsMap(t *testing.T) {
	inWeather(t, small, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(func(op decorate.Op) error {
			if op == decorate.OpPutIfMatch {
				return errs.New(errs.Unavailable, "no heads today")
			}
			return nil
		})
		got := waitedDuring(t, d, func() {
			putUntilOneWaits(t, d, 20*time.Second, func() { w.set(nil) })
		})
		if n := got[disk.WaitMap]; n < 20*time.Second || n > 25*time.Second {
			t.Errorf("map: %v", n)
		}
		delete(got, disk.WaitMap)
		got.is(t, waited{})
	})
}

// TestWhatIsNotProvenIsWaitedForAsQueue: a store that takes objects and doesn't show them gets so
// many, and no more, as they stay in memory until it does.
func TestWhatIsNotProvenIsWaitedForAsQueue(t *testing.T) {
	noMap := func(o *disk.AttachOptions) { o.ObjectBytes, o.CheckpointObjects = 64<<10, 1<<20 }
	inWeather(t, noMap, func(t *testing.T, w *weather, d *disk.Disk) {
		w.set(func(op decorate.Op) error {
			if op == decorate.OpGet {
				return errs.New(errs.Unavailable, "no reads today")
			}
			return nil
		})
		got := waitedDuring(t, d, func() {
			putUntilOneWaits(t, d, 20*time.Second, func() { w.set(nil) })
		})
		if n := got[disk.WaitQueue]; n < 20*time.Second || n > 25*time.Second {
			t.Errorf("queue: %v", n)
		}
		delete(got, disk.WaitQueue)
		delete(got, disk.WaitStore) // of hundreds that took a moment each
		got.is(t, waited{})
	})
}

// putUntilOneWaits writes and flushes, until that takes so long. Then it calls f, and waits for it.
func putUntilOneWaits(t *testing.T, d *disk.Disk, long time.Duration, f func()) {
	t.Helper()
	for i := range 2000 {
		done := make(chan error, 1)
		go func() { done <- put(t, t.Context(), d, i, 1) }()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			continue
		case <-time.After(long):
		}
		f()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return
	}
	t.Error("none has waited")
}

// behindGateway is a store behind a gateway that takes its time, or can't be reached at first.
type behindGateway struct {
	blob.Store
	gateway, store time.Duration

	mu   sync.Mutex
	away int // attempts that don't reach it
	mute int // and then those that reach what doesn't say so, and fail
}

func (g *behindGateway) PutIfAbsent(
	ctx context.Context, key string, body []byte,
) (blob.ETag, error) {
	g.mu.Lock()
	g.away--
	away := g.away >= 0
	mute := !away && g.mute > 0
	if mute {
		g.mute--
	}
	g.mu.Unlock()
	if away {
		time.Sleep(g.gateway)
		blob.TellAttempt(ctx, 0)
		return "", errs.New(errs.Unavailable, "connection refused")
	}
	if mute {
		time.Sleep(muteTakes)
		return "", errs.New(errs.Unavailable, "bad gateway")
	}
	time.Sleep(g.gateway + g.store)
	blob.TellAttempt(ctx, g.store)
	return g.Store.PutIfAbsent(ctx, key, body)
}

// muteTakes is what an attempt takes of which nobody says whose fault it was.
const muteTakes = 20 * time.Second

func TestASlowGatewayIsWaitedForAsGateway(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, own *disk.Disk) {
		mustClose(t, own)
		g := &behindGateway{Store: w, gateway: 2 * time.Second, store: time.Second}
		opts := disk.AttachOptions{Generation: 2, Holder: "vm"}
		opts.Revalidate = -1
		d, err := disk.Attach(t.Context(), g, path, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Abandon()
		waitedDuring(t, d, func() { mustPut(t, d, 0) }).
			is(t, waited{disk.WaitGateway: 2 * time.Second, disk.WaitStore: time.Second})
		g.mu.Lock()
		g.away = 10
		g.mu.Unlock()
		got := waitedDuring(t, d, func() { mustPut(t, d, 1) })
		if n := got[disk.WaitGateway]; n < 22*time.Second {
			t.Errorf("gateway: %v", n)
		}
		delete(got, disk.WaitGateway)
		got.is(t, waited{disk.WaitStore: time.Second})
		// what one attempt has told is not of the next
		g.mu.Lock()
		g.away, g.mute = 1, 1
		g.mu.Unlock()
		got = waitedDuring(t, d, func() { mustPut(t, d, 2) })
		if n := got[disk.WaitStore]; n < muteTakes+time.Second {
			t.Errorf("store: %v", n)
		}
	})
}

func mustPut(t *testing.T, d *disk.Disk, block int) {
	t.Helper()
	if err := put(t, t.Context(), d, block, 1); err != nil {
		t.Error(err)
	}
}

// slowJournal is a journal's file that takes its time to sync.
type slowJournal struct {
	*journaltest.File
	took time.Duration
}

func (f *slowJournal) Sync() error {
	time.Sleep(f.took)
	return f.File.Sync()
}

func TestASlowJournalIsWaitedForAsJournal(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		file := &slowJournal{
			File: journaltest.New(make([]byte, 2<<20), &journaltest.Death{})}
		j, err := journal.New(file, journal.Options{Size: 2 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SetBound(t.Context(), time.Hour, j); err != nil {
			t.Fatal(err)
		}
		mustPut(t, d, 0)
		file.took = 3 * time.Second
		w.set(slowPuts(time.Minute, always1))
		waitedDuring(t, d, func() { mustPut(t, d, 1) }).
			is(t, waited{disk.WaitJournal: 3 * time.Second})
		w.set(nil)
	})
}

// TestWritesOlderThanTheBoundAreWaitedForAsQueue: the journal has the flush at once, and the store
// lacks what is due.
func TestWritesOlderThanTheBoundAreWaitedForAsQueue(t *testing.T) {
	inWeather(t, nil, func(t *testing.T, w *weather, d *disk.Disk) {
		j, err := journal.New(journaltest.New(make([]byte, 2<<20), &journaltest.Death{}),
			journal.Options{Size: 2 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SetBound(t.Context(), 2*time.Second, j); err != nil {
			t.Fatal(err)
		}
		w.set(slowPuts(9*time.Second, always1))
		mustPut(t, d, 0)
		time.Sleep(4 * time.Second)
		got := waitedDuring(t, d, func() {
			if err := d.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if n := got[disk.WaitQueue]; n < 4*time.Second || n > 9*time.Second {
			t.Errorf("queue: %v", n)
		}
		delete(got, disk.WaitQueue)
		got.is(t, waited{})
		w.set(nil)
	})
}
