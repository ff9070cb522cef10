package disk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets is how many there are; the last holds all that took a quarter of an hour or
// longer.
const latencyBuckets = 31

// latency counts durations by their order of magnitude in base 2.
type latency struct{ buckets [latencyBuckets]atomic.Uint64 }

func (l *latency) note(took time.Duration) {
	l.buckets[min(bits.Len64(uint64(max(0, took.Microseconds()))), latencyBuckets-1)].Add(1)
}

func (l *latency) load() (h Histogram) {
	for i := range l.buckets {
		h[i] = l.buckets[i].Load()
	}
	return h
}

// Histogram counts durations: bucket 0 those below a microsecond, bucket i those from 2^(i-1) up to
// 2^i microseconds.
type Histogram [latencyBuckets]uint64

// Since returns what was counted after an earlier reading.
func (h Histogram) Since(earlier Histogram) Histogram {
	for i := range h {
		h[i] -= earlier[i]
	}
	return h
}

// Quantile returns the upper bound of the bucket that holds quantile q, such as 0.99; 0 if nothing
// was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	var total, seen uint64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return 0
	}
	for i, n := range h {
		if seen += n; float64(seen) >= q*float64(total) {
			return time.Microsecond << i
		}
	}
	return time.Microsecond << (latencyBuckets - 1)
}
