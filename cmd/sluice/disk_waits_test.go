package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
)

// TestTopSaysWhereFlushesWait: of the interval, the longest wait first, by what the API tells.
func TestTopSaysWhereFlushesWait(t *testing.T) {
	said := func(store, queue, pace time.Duration, n uint64) reading {
		wait := func(d time.Duration) api.DiskWait {
			w := api.DiskWait{SumNS: d.Nanoseconds(), Times: make([]uint64, 31)}
			w.Times[20] = n // about a second
			return w
		}
		return reading{at: time.Unix(int64(n), 0), ok: true, stats: statsOfMachine(api.DiskStats{
			Flushes: n, FlushTimeNS: (store + queue + pace).Nanoseconds(),
			FlushWaits: map[string]api.DiskWait{"store": wait(store), "queue": wait(queue),
				"pace": wait(pace)}})}
	}
	before := said(time.Hour, time.Minute, time.Hour, 1)
	row := compareTop(topRow{Machine: "web-1"}, before,
		said(time.Hour+3*time.Second, time.Minute+time.Second, time.Hour+time.Millisecond, 11))
	if len(row.FlushWaits) != 3 || row.FlushWaits[0].Wait != disk.WaitStore ||
		row.FlushWaits[2].Wait != disk.WaitPace {
		t.Errorf("%+v", row.FlushWaits)
	}
	var out strings.Builder
	if err := printTop(&out, []topRow{row}); err != nil {
		t.Fatal(err)
	}
	const want = "web-1: flushes wait for store 75% (p99 1048.6 ms), queue 25% (p99 1048.6 ms)\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s", out.String())
	}
	if row := compareTop(topRow{}, before, before); len(row.FlushWaits) != 0 {
		t.Errorf("no flush has ended: %+v", row.FlushWaits)
	}
}
