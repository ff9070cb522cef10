package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// fake is a store that answers its next requests as it is told, after doing them or not.
type fake struct {
	blob.Store

	mu    sync.Mutex
	loses int   // answers of writes that were made
	lies  int   // writes that it acknowledges and doesn't make
	down  error // of all requests; nil: it is up
}

func newFake() *fake { return &fake{Store: memblob.New()} }

func (f *fake) next() (loses, lies bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return false, false, f.down
	}
	if loses = f.loses > 0; loses {
		f.loses--
	}
	if lies = f.lies > 0; lies {
		f.lies--
	}
	return loses, lies, nil
}

func (f *fake) set(down error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *fake) PutIfAbsent(ctx context.Context, key string, b []byte) (blob.ETag, error) {
	loses, lies, err := f.next()
	if err != nil {
		return "", err
	}
	if lies {
		return "made", nil
	}
	tag, err := f.Store.PutIfAbsent(ctx, key, b)
	if err == nil && loses {
		return "", errs.New(errs.Unavailable, "the answer got lost")
	}
	return tag, err
}

func (f *fake) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down != nil {
		return blob.Object{}, down
	}
	return f.Store.Get(ctx, key, r)
}

func config() store.Config {
	return store.Config{InFlight: 4, OpTimeout: time.Second, Bound: 10 * time.Second}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWriteOnce: a write whose answer got lost succeeds, and does not over another's object.
func TestWriteOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := store.New(f, config())
		f.loses = 1
		must(t, c.PutNew(t.Context(), "a", []byte("ours")))
		if n := c.Counts(); n.Puts != 2 || n.Retries != 1 {
			t.Errorf("counted %+v", n)
		}
		if err := c.PutNew(t.Context(), "a", []byte("others")); !errs.Is(err, errs.Conflict) {
			t.Errorf("over another's object: %v", err)
		}
		mine := func(b []byte) bool { return bytes.Equal(b, []byte("log")) }
		reusable, err := c.Upload(t.Context(), "b", []byte("log"), mine, nil)
		if err != nil || !reusable {
			t.Errorf("an upload at once: %v, %v", reusable, err)
		}
		f.loses = 1
		reusable, err = c.Upload(t.Context(), "c", []byte("log"), mine, nil)
		if err != nil || reusable {
			t.Errorf("an upload that may still be read: %v, %v", reusable, err)
		}
	})
}

// TestBound: a request is given up after its bound, and time under a hold doesn't count.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.set(errs.New(errs.Unavailable, "down"))
		c := store.New(f, config())
		began := time.Now()
		_, err := c.Get(t.Context(), "a", blob.All())
		if took := time.Since(began); !errs.Is(err, errs.Unavailable) || took < 8*time.Second ||
			took > 10*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		c.HoldIO(true)
		ctx, cancel := c.Within(t.Context(), 10*time.Second)
		defer cancel()
		time.Sleep(time.Hour)
		if ctx.Err() != nil || store.WaitedOut(ctx) {
			t.Errorf("under a hold: %v", context.Cause(ctx))
		}
		c.HoldIO(false)
		time.Sleep(9 * time.Second)
		if ctx.Err() != nil {
			t.Errorf("nine seconds after a hold: %v", context.Cause(ctx))
		}
		time.Sleep(2 * time.Second)
		if !store.WaitedOut(ctx) {
			t.Errorf("eleven seconds after a hold: %v", context.Cause(ctx))
		}
	})
}

// TestProof: what a store acknowledged and did not make is written again, and counted.
func TestProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := store.New(f, config())
		body := bytes.Repeat([]byte("x"), format.LogFixedLen+100)
		f.lies = 1
		must(t, c.PutNew(t.Context(), "a", body))
		if there, err := c.Exists(t.Context(), "a"); there || err != nil {
			t.Fatalf("the fake has made it: %v, %v", there, err)
		}
		must(t, c.Prove(t.Context(), "a", body))
		obj, err := f.Store.Get(t.Context(), "a", blob.All())
		if err != nil || !bytes.Equal(obj.Data, body) || c.Counts().Lost != 1 {
			t.Errorf("after a proof: %v, %+v", err, c.Counts())
		}
		if err := c.Prove(t.Context(), "a", []byte("another")); !errs.Is(err, errs.Conflict) {
			t.Errorf("the proof of another object: %v", err)
		}
		f.lies = 1
		must(t, c.PutNew(t.Context(), "ckpt/v1", body))
		again, err := c.Shown(t.Context(), "ckpt/v1", body)
		if err != nil || !again {
			t.Errorf("a document that was lost: %v, %v", again, err)
		}
		again, err = c.Shown(t.Context(), "ckpt/v1", body)
		if err != nil || again {
			t.Errorf("a document that is listed: %v, %v", again, err)
		}
		if again, err = c.Present(t.Context(), "head", body); err != nil || !again {
			t.Errorf("a head that was lost: %v, %v", again, err)
		}
	})
}

// TestStallOfTwoStores: each is noticed by name, and a probe asks the one that has stalled.
func TestStallOfTwoStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, log := newFake(), newFake()
		var mu sync.Mutex
		var probes []bool
		main := store.New(own, config())
		main.Watch(2*time.Second, "disks/a", slog.New(slog.DiscardHandler), func(ofLog bool) {
			mu.Lock()
			defer mu.Unlock()
			probes = append(probes, ofLog)
		})
		defer main.StopWatching()
		second := store.New(log, config())
		second.LogStoreOf(main, "s3://fast")
		log.set(errs.New(errs.Exhausted, "no space"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		_, changed := main.Stalled()
		go func() {
			_, err := second.Upload(ctx, "log/1", []byte("x"), func([]byte) bool { return true },
				nil)
			ended <- err
		}()
		<-changed
		s, _ := main.Stalled()
		if s == nil || s.LogStore != "s3://fast" || s.Kind != errs.Exhausted ||
			s.Operation != "write log/1" ||
			!strings.Contains(s.Reason, "takes no more") || s.Remedy == "" {
			t.Fatalf("the stall of a full log store: %+v", s)
		}
		must(t, main.PutNew(t.Context(), "a", []byte("x"))) // the other one goes on
		cancel()
		<-ended
		time.Sleep(2 * time.Second)
		mu.Lock()
		if len(probes) == 0 || !probes[0] {
			t.Errorf("probes of the log store: %v", probes)
		}
		mu.Unlock()
		log.set(nil)
		must(t, second.PutNew(t.Context(), "log/2", []byte("x")))
		if s, _ := main.Stalled(); s != nil {
			t.Errorf("the store answers again: %+v", s)
		}
	})
}

// TestPace: a store that asks for fewer requests gets half as many uploads, and more with each that
// it takes.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := store.New(f, config())
		f.set(errs.Wrap(errs.Unavailable, &blob.Throttled{After: time.Second}, "slow down"))
		began := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			f.set(nil)
		}()
		must(t, c.PutNew(t.Context(), "a", []byte("x")))
		if took := time.Since(began); took < time.Second || c.Uploads() != 2 ||
			c.Counts().Throttled != 1 {
			t.Errorf("after %v: %d uploads, %+v", took, c.Uploads(), c.Counts())
		}
		for _, key := range strings.Split("bcdefghijklmn", "") {
			_, err := c.Upload(t.Context(), key, []byte("x"), func([]byte) bool { return true },
				nil)
			must(t, err)
		}
		if c.Uploads() != 4 {
			t.Errorf("after uploads at once: %d", c.Uploads())
		}
	})
}
