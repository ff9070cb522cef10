package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestBlockersHaveABound: a drain of any size has a record that can be written. What is beyond the
// bound is told in numbers, and keeps its time.
func TestBlockersHaveABound(t *testing.T) {
	var found []fleet.Blocker
	for i := range mostBlockers + 50 {
		code := fleet.CodeNoCapacity
		if i%2 == 0 {
			code = fleet.CodeBusy
		}
		found = append(found, fleet.Blocker{Code: code, Object: fmt.Sprintf("machine/%04d", i)})
	}
	first := orderBlockers(found[:mostBlockers], nil, time.Unix(1, 0))
	if len(first) != mostBlockers || first[mostBlockers-1].Code == fleet.CodeMore {
		t.Errorf("as many as may be: %d, the last %+v", len(first), first[len(first)-1])
	}
	told := orderBlockers(found, nil, time.Unix(1, 0))
	again := orderBlockers(slices.Clone(told), told, time.Unix(2, 0))
	last := told[len(told)-1]
	if len(told) != mostBlockers || last.Code != fleet.CodeMore ||
		last.Detail != "51 more (25 busy, 26 no-capacity)" {
		t.Errorf("%d, the last %+v", len(told), last)
	}
	for i, b := range again {
		if b.Since != time.Unix(1, 0) {
			t.Fatalf("blocker %d is since %v", i, b.Since)
		}
	}
}
