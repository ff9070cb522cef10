package fleettest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Acked remembers the newest record that a machine's ledger acknowledged to an observer outside,
// who asks all the time, and goes on asking while the machine moves.
type Acked struct {
	last atomic.Uint64
	ref  string
}

// WatchAcked begins to observe; it ends with the test.
func WatchAcked(t testing.TB, f *Fleet, ref string) *Acked {
	t.Helper()
	a := &Acked{ref: ref}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			ask, done := context.WithTimeout(ctx, 2*time.Second)
			n, err := f.Ledger(ask, ref, "acked")
			done()
			if err == nil && n > a.last.Load() {
				a.last.Store(n)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return a
}

// Last is the newest acknowledged record.
func (a *Acked) Last() uint64 { return a.last.Load() }

// MustBeIn fails the test unless the machine's ledger is whole and has every record that was
// acknowledged before the call.
func (a *Acked) MustBeIn(f *Fleet, ref string) {
	f.t.Helper()
	want := a.Last()
	var got uint64
	f.Eventually(30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
		defer cancel()
		var err error
		got, err = f.Ledger(ctx, ref, "verify")
		if err != nil && strings.Contains(err.Error(), "damaged") {
			f.t.Fatalf("ledger of %s: %v", ref, err)
		}
		return err
	})
	if got < want {
		f.t.Fatalf("record %d was acknowledged, but the ledger of %s ends at %d", want, ref, got)
	}
}
