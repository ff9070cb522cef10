package main

import (
	"math"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestRateOfAVMsNetwork(t *testing.T) {
	for mib, want := range map[float64]int64{0: 0, 1: 1 << 20, 0.5: 1 << 19, 1 << 20: 1 << 40} {
		if got, err := (&storeLimits{networkMiB: mib}).rate(); err != nil || got != want {
			t.Errorf("%v MiB/s: %d, %v", mib, got, err)
		}
	}
	for _, bad := range []float64{-1, 0.001, 1 << 21, math.NaN(), math.Inf(1)} {
		if got, err := (&storeLimits{networkMiB: bad}).rate(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v MiB/s: %d, %v", bad, got, err)
		}
	}
}
