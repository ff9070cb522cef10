package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/audit"
)

// TestRefusalsAreCounted: what isn't recorded one by one is told in one entry, once.
func TestRefusalsAreCounted(t *testing.T) {
	var f refusals
	now, taken := time.Now(), 0
	for range 100 {
		if f.take(audit.Entry{Remote: "there"}, now) {
			taken++
		}
	}
	e, some := f.counted()
	if taken != refusedMost || !some || !strings.Contains(e.Note, " 90 ") || e.Remote != "there" {
		t.Errorf("%d taken; %v %+v", taken, some, e)
	}
	if _, some := f.counted(); some {
		t.Error("they were told twice")
	}
	if !f.take(audit.Entry{}, now.Add(refusedEvery)) {
		t.Error("the next minute has nothing of its own")
	}
}
