package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/x/backoff"
)

func TestWaitsDoubleUpToTheBound(t *testing.T) {
	b := backoff.New(time.Second, 5*time.Second)
	for _, most := range []time.Duration{1, 2, 4, 5, 5} {
		if d := b.Next(); d < most*time.Second/2 || d > most*time.Second {
			t.Errorf("%v, want half to all of %d s", d, most)
		}
	}
	b.Reset()
	if d := b.Next(); d > time.Second {
		t.Errorf("%v after a reset", d)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := backoff.Sleep(t.Context(), time.Minute)
		if err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		err = backoff.Sleep(ctx, time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
