package disk

import (
	"testing"
	"time"
)

func TestLatencyQuantiles(t *testing.T) {
	var l latency
	if q := l.load().Quantile(0.5); q != 0 {
		t.Errorf("of nothing: %v", q)
	}
	before := l.load()
	for range 98 {
		l.note(900 * time.Microsecond)
	}
	l.note(40 * time.Millisecond)
	l.note(-time.Second)
	l.note(time.Hour)
	h := l.load().Since(before)
	for q, want := range map[float64]time.Duration{0.5: 1024 * time.Microsecond,
		0.985: 65536 * time.Microsecond, 0: time.Microsecond} {
		if got := h.Quantile(q); got < want/2 || got > want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if got := h.Quantile(1); got < 15*time.Minute {
		t.Errorf("the longest: %v", got)
	}
}
