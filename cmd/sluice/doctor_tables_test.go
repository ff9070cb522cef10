package main

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestProcessIDsForAllMachines: the ids must be enough for all machines that fit into the memory.
func TestProcessIDsForAllMachines(t *testing.T) {
	for _, c := range []struct {
		most, memoryMiB int64
		enough          bool
	}{
		{32768, 1024, true}, {32768, 24105, false}, {4194304, 24105, true},
		{4194304, 1 << 24, true}, // the kernel has no more
		{4096, 100, false},
	} {
		detail, err := judgeProcessIDs(c.most, c.memoryMiB)
		if c.enough && (err != nil || detail == "") ||
			!c.enough && (errs.KindOf(err) != errs.Exhausted || errs.RemedyOf(err) == "") {
			t.Errorf("%d ids, %d MiB: %q, %v", c.most, c.memoryMiB, detail, err)
		}
	}
}
