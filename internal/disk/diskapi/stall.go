package diskapi

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
)

// stallRefresh is how often a stall that goes on is told again, since it is not an event when
// somebody begins to wait.
const stallRefresh = 500 * time.Millisecond

// StallOf returns a disk's stall; nil if there is none, and of a disk that has stopped.
func StallOf(d Disk) *disk.Stall {
	s, _ := d.Stalled()
	if d.Err() != nil {
		return nil
	}
	return s
}

// awaitStall answers once there is another stall than the one that is known, or none any more.
func awaitStall(ctx context.Context, d Disk, known Stall) (Stall, error) {
	for {
		_, changed := d.Stalled()
		now := StallOf(d)
		var refresh <-chan time.Time
		switch {
		case (now == nil) != (known.Stall == nil), now != nil &&
			!now.Since.Equal(known.Stall.Since):
			return Stall{Stall: now}, nil
		case now != nil:
			refresh = time.After(stallRefresh)
		case d.Err() != nil:
			changed = nil // nothing more comes
		}
		stopped := d.Stopped()
		if d.Err() != nil {
			stopped = nil
		}
		select {
		case <-changed:
		case <-stopped:
		case <-refresh:
			return Stall{Stall: StallOf(d)}, nil
		case <-ctx.Done():
			return Stall{}, context.Cause(ctx)
		}
	}
}
