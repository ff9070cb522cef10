package patience_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/patience"
)

// after looks every tenth of a second and returns when the watch has counted to limit; ten hours:
// never.
func after(limit time.Duration, mark func(time.Duration) string, share float64) time.Duration {
	const step = 100 * time.Millisecond
	var w patience.Watch
	began := time.Unix(1000, 0)
	for d := time.Duration(0); d < 10*time.Hour; d += step {
		if w.Look(began.Add(d), mark(d), share) >= limit {
			return d
		}
	}
	return 10 * time.Hour
}

func TestWatchTellsSlowFromDead(t *testing.T) {
	same := func(time.Duration) string { return "" }
	every := func(d time.Duration) func(time.Duration) string {
		return func(now time.Duration) string { return (now / d * d).String() }
	}
	for _, c := range []struct {
		name  string
		mark  func(time.Duration) string
		share float64
		want  time.Duration
	}{
		{"dead on an idle host", same, 0, time.Minute},
		{"dead on a host that is as idle as hosts are", same, 0.2, time.Minute},
		{"dead on a host that works twice as much as it can", same, 0.5, 2 * time.Minute},
		{"dead on a host that does nothing but wait", same, 1, 10 * time.Minute},
		{"slow, and gets further", every(50 * time.Second), 0, 10 * time.Hour},
		{"too slow for an idle host", every(70 * time.Second), 0, time.Minute},
		{"as slow, on a host under pressure", every(70 * time.Second), 0.6, 10 * time.Hour},
	} {
		got := after(time.Minute, c.mark, c.share)
		if diff := got - c.want; diff < -time.Second || diff > time.Second {
			t.Errorf("%s: given up after %s, want %s", c.name, got, c.want)
		}
	}
}

func TestWhatNobodySawDoesNotCount(t *testing.T) {
	var w patience.Watch
	now := time.Unix(1000, 0)
	w.Look(now, "a", 0)
	now = now.Add(time.Hour)
	if got := w.Look(now, "a", 0); got > 2*time.Second {
		t.Errorf("an hour without a look counted as %s", got)
	}
	before := w.Look(now, "a", 0)
	now = now.Add(time.Second)
	w.Skip(now)
	if got := w.Look(now, "a", 0); got != before {
		t.Errorf("a second that was skipped counted: %s, then %s", before, got)
	}
	if got := w.Look(now.Add(-time.Minute), "a", 0); got != before {
		t.Errorf("a clock that went back counted: %s, then %s", before, got)
	}
}

func TestStretchIsBounded(t *testing.T) {
	if got := patience.Stretch(10*time.Second, 0.1, 3); got != 10*time.Second {
		t.Errorf("an idle host's deadline of 10s became %s", got)
	}
	if got := patience.Stretch(10*time.Second, 1, 3); got != 30*time.Second {
		t.Errorf("a saturated host's deadline of 10s became %s, want 30s", got)
	}
}
