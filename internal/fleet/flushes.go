package fleet

import (
	"maps"
	"math"
	"slices"
	"time"
)

// DiskFlushes tells how long flushes of a machine's disk took since it was attached, and what they
// waited for in that time. A worker asks for it; reports to the server don't carry it.
type DiskFlushes struct {
	DirtyBytes int64     `json:"dirty_bytes"` // of writes, in memory
	Times      Durations `json:"times"`
	// Waits has the parts of the times by what was waited for: queue, map, encode, pace, gateway,
	// store or journal.
	Waits map[string]Durations `json:"waits,omitempty"`
}

// FlushWaits are the keys of DiskFlushes.Waits, in the order in which a flush goes through them.
func FlushWaits() []string {
	return []string{"queue", "map", "encode", "pace", "gateway", "store", "journal"}
}

// Durations counts durations by their order of magnitude: bucket 0 those below a microsecond,
// bucket i those from 2^(i-1) up to 2^i microseconds. Empty ones at the end are left out.
type Durations struct {
	Sum     time.Duration `json:"sum_ns"`
	Buckets []uint64      `json:"buckets,omitempty"`
}

// maxBuckets are enough for the longest time.Duration, and more.
const maxBuckets = 64

// NewDurations returns what was counted in buckets like those of Durations.
func NewDurations(sum time.Duration, buckets []uint64) Durations {
	for len(buckets) > 0 && buckets[len(buckets)-1] == 0 {
		buckets = buckets[:len(buckets)-1]
	}
	return Durations{Sum: sum, Buckets: buckets}
}

// Count is how many durations were counted; the most that fits where that is more.
func (d Durations) Count() (n uint64) {
	for _, x := range d.Buckets {
		n = add(n, x)
	}
	return n
}

// bounded returns what a Durations can have of one that somebody made up.
func (d Durations) bounded() Durations {
	return Durations{Sum: max(0, d.Sum), Buckets: d.Buckets[:min(len(d.Buckets), maxBuckets)]}
}

// plus returns the sum of both, less what o had at an earlier time.
func (d Durations) plus(o, earlier Durations) Durations {
	sum := slices.Clone(d.Buckets)
	for i, n := range o.Buckets {
		if i < len(earlier.Buckets) {
			n -= min(n, earlier.Buckets[i])
		}
		if i == len(sum) {
			sum = append(sum, 0)
		}
		sum[i] = add(sum[i], n)
	}
	grown := max(0, o.Sum-earlier.Sum)
	return Durations{Sum: d.Sum + min(grown, math.MaxInt64-d.Sum), Buckets: sum}
}

// add returns the sum, or the most that fits: a count never goes back.
func add(a, b uint64) uint64 { return a + min(b, math.MaxUint64-a) }

// Bounded returns what a disk can have counted of what somebody tells: it has no other waits than
// FlushWaits, and is of a small size.
func (f DiskFlushes) Bounded() DiskFlushes {
	known := DiskFlushes{DirtyBytes: max(0, f.DirtyBytes), Times: f.Times.bounded()}
	for _, name := range FlushWaits() {
		if d, ok := f.Waits[name]; ok {
			if known.Waits == nil {
				known.Waits = map[string]Durations{}
			}
			known.Waits[name] = d.bounded()
		}
	}
	return known
}

// Plus returns the sum of both, less what o had counted at an earlier time. It never is less than
// f. Dirty bytes are no count, and stay f's.
func (f DiskFlushes) Plus(o, earlier DiskFlushes) DiskFlushes {
	f.Times = f.Times.plus(o.Times, earlier.Times)
	f.Waits = maps.Clone(f.Waits)
	for name, now := range o.Waits {
		if f.Waits == nil {
			f.Waits = map[string]Durations{}
		}
		f.Waits[name] = f.Waits[name].plus(now, earlier.Waits[name])
	}
	return f
}
