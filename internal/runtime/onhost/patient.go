package onhost

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// mostStretch bounds how much a host's pressure stretches what is waited for.
const mostStretch = 10

// Patient returns how long to wait on this host, now, for what takes that long on one without
// pressure.
func Patient(d time.Duration) time.Duration {
	r, err := pressure.New().Read()
	if err != nil {
		return d // a host that doesn't tell is taken for one without any
	}
	return patience.Stretch(d, patience.Share(r.CPU, r.Memory, r.IO), mostStretch)
}

// Within gives a caller that has set no deadline that one. Who has set one knows better.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, Patient(d))
}
