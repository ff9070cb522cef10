package onhost

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// mostStretch is the factor by which a host's pressure stretches a timeout at most.
const mostStretch = 10

// Patient returns a timeout stretched by this host's present pressure.
func Patient(d time.Duration) time.Duration {
	r, err := pressure.New().Read()
	if err != nil {
		return d // a host that doesn't tell is taken for one without any
	}
	return patience.Stretch(d, patience.Share(r.CPU, r.Memory, r.IO), mostStretch)
}

// Within returns ctx with this timeout, unless the caller has set a deadline.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, Patient(d))
}
