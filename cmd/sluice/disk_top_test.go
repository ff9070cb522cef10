package main

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/filledtest"
)

// TestTopReadsAllThatTheAPISays: the engine's form of a machine's counts has each of them under
// the name that it has in the API, so that none gets lost between the two.
func TestTopReadsAllThatTheAPISays(t *testing.T) {
	var times disk.Histogram // of this length, as the engine fills it in
	times[3] = 15
	said := api.DiskStats{Reads: 1, Writes: 2, ReadBytes: 3, WriteBytes: 4, Flushes: 5, Gets: 6,
		Puts: 7, HeadSwaps: 8, Retries: 9, Throttled: 10, LostObjects: 11, FrameHits: 12,
		FrameMisses: 13, DirtyBytes: 14, FlushTimes: times[:], FlushTimeNS: 16,
		FlushWaits: map[string]api.DiskWait{"pace": {SumNS: 17, Times: times[:]}},
		Stall: &api.DiskStall{Since: time.Unix(18, 0).UTC(), Operation: "write", Kind: "denied",
			Reason: "why", Remedy: "do", HeldSince: time.Unix(19, 0).UTC(), Paused: true}}
	if zero := filledtest.Zero(said); len(zero) > 0 {
		t.Errorf("give these a value here: %v", zero)
	}
	read := statsOfMachine(said)
	compareFields(t, said, read, "stall") // field by field, because one isn't the disk's
	compareFields(t, said.Stall, read.Stall, "paused")
}

// compareFields has each JSON field of said in read, too, but for one.
func compareFields(t *testing.T, said, read any, except string) {
	t.Helper()
	ours := filledtest.Fields(t, read)
	for name, value := range filledtest.Fields(t, said) {
		if name != except && string(ours[name]) != string(value) {
			t.Errorf("%s: the API says %s, and %q was read", name, value, ours[name])
		}
	}
}
