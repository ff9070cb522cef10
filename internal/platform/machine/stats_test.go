package machine

import (
	"testing"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/filledtest"
)

// TestCountsKeepTheirNames: what the API says of a machine's disk has the names and the values that
// the engine's own counts have, and leaves out none of its fields.
func TestCountsKeepTheirNames(t *testing.T) {
	engine := disk.Stats{Reads: 1, Writes: 2, ReadBytes: 3, WriteBytes: 4, Flushes: 5,
		Gets: 6, Puts: 7,
		HeadSwaps: 8, Retries: 9, Throttled: 10, Lost: 11, FrameHits: 12, FrameMisses: 13,
		DirtyBytes: 14,
		Stall:      &disk.Stall{Reason: "x"}}
	engine.FlushTimes[3], engine.FlushTime = 15, 16
	waited := disk.Waited{Sum: 17}
	waited.Times[2] = 18
	engine.FlushWaits = map[disk.Wait]disk.Waited{disk.WaitPace: waited}
	ours := filledtest.Fields(t, engine)
	theirs := filledtest.Fields(t, statsToAPI(engine, &fleet.DiskStall{Reason: "x"}))
	delete(theirs, "stall") // the platform's own, which also says that the machine is paused
	for name, value := range theirs {
		if string(ours[name]) != string(value) {
			t.Errorf("%s: the engine has %s, the API %s", name, ours[name], value)
		}
	}
	for name, nothing := range filledtest.Fields(t, api.DiskStats{}) {
		if string(theirs[name]) == string(nothing) {
			t.Errorf("%s is not told", name)
		}
	}
}

// TestWaitsKeepTheirNames: the fleet knows each thing that the engine says a flush waits for.
func TestWaitsKeepTheirNames(t *testing.T) {
	engine := disk.Waits()
	if len(engine) != len(fleet.FlushWaits()) {
		t.Errorf("the engine has %v, the fleet %v", engine, fleet.FlushWaits())
	}
	for i, name := range fleet.FlushWaits() {
		if i < len(engine) && string(engine[i]) != name {
			t.Errorf("wait %d: the engine has %s, the fleet %s", i, engine[i], name)
		}
	}
}
