package worker

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestAHostileVMTellsOfFlushes: whatever it makes up, the worker's own counts never go back, and
// take no more room.
func TestAHostileVMTellsOfFlushes(t *testing.T) {
	m := &machine{host: &Worker{}}
	m.flushes = flushCount{vm: "vm"}
	before := fleet.DiskFlushes{Times: fleet.Durations{Sum: time.Second, Buckets: []uint64{5}}}
	m.host.flushes.add(before, fleet.DiskFlushes{})
	huge := fleet.Durations{Sum: math.MaxInt64, Buckets: make([]uint64, 5000)}
	huge.Buckets[0], huge.Buckets[1] = math.MaxUint64-1, 1
	told := []fleet.DiskFlushes{
		{DirtyBytes: -1, Times: huge, Waits: map[string]fleet.Durations{"store": {Sum: -1}}},
		{Times: fleet.Durations{Sum: math.MinInt64, Buckets: huge.Buckets}},
	}
	for i := range 100 {
		made := map[string]fleet.Durations{"store": huge, fmt.Sprint("made up ", i): huge}
		told = append(told, fleet.DiskFlushes{Times: huge, Waits: made})
	}
	for i := range told {
		m.countFlushes("vm", &told[i])
		now := m.host.flushes.load()
		for _, f := range []fleet.DiskFlushes{now, m.flushes.last} {
			if len(f.Waits) > len(fleet.FlushWaits()) || len(f.Times.Buckets) > 64 {
				t.Fatalf("%d waits and %d buckets are kept", len(f.Waits), len(f.Times.Buckets))
			}
			if f.Times.Sum < 0 || f.DirtyBytes < 0 || f.Waits["store"].Sum < 0 {
				t.Fatalf("less than nothing is counted: %+v", f)
			}
		}
		if now.Times.Count() < before.Times.Count() || now.Times.Sum < before.Times.Sum {
			t.Fatalf("%+v are counted, and were %+v", now.Times, before.Times)
		}
		before = now
	}
}
