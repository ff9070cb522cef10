package onhost_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

func TestACallersDeadlineIsKept(t *testing.T) {
	theirs := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(t.Context(), theirs)
	defer cancel()
	within, end := onhost.Within(ctx, time.Second)
	defer end()
	if at, ok := within.Deadline(); !ok || !at.Equal(theirs) {
		t.Errorf("a caller's deadline of %s became %s", theirs, at)
	}
	without, end := onhost.Within(t.Context(), time.Minute)
	defer end()
	if at, ok := without.Deadline(); !ok || time.Until(at) > 10*time.Minute {
		t.Errorf("without a deadline it is %s, %v", at, ok)
	}
}

func TestPatientIsBounded(t *testing.T) {
	if got := onhost.Patient(time.Second); got < time.Second || got > 10*time.Second {
		t.Errorf("a second became %s", got)
	}
}
