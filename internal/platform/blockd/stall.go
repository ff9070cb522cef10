package blockd

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
)

// stallRefresh is how often an ongoing stall is reported again. That another request begins to wait
// is no event, so the time since when requests wait must be polled.
const stallRefresh = 500 * time.Millisecond

// stallOf returns a disk's stall; nil if there is none, or the disk has stopped.
func stallOf(d Disk) *fleet.DiskStall {
	s, _ := d.Stalled()
	if s == nil || d.Err() != nil {
		return nil
	}
	return &fleet.DiskStall{Since: s.Since, Operation: s.Operation, Kind: string(s.Kind),
		Reason: s.Reason, Remedy: s.Remedy, HeldSince: s.HeldSince}
}

// awaitStall answers once the stall differs from the known one, or is over.
func (s *Server) awaitStall(ctx context.Context, known blockapi.Stall) (blockapi.Stall, error) {
	select {
	case <-s.attached:
	case <-ctx.Done():
		return blockapi.Stall{}, context.Cause(ctx)
	}
	s.mu.Lock()
	d := s.disk
	s.mu.Unlock()
	for {
		_, changed := d.Stalled()
		now := stallOf(d)
		var refresh <-chan time.Time
		switch {
		case (now == nil) != (known.Stall == nil), now != nil &&
			!now.Since.Equal(known.Stall.Since):
			return blockapi.Stall{Stall: now}, nil
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
			return blockapi.Stall{Stall: stallOf(d)}, nil
		case <-ctx.Done():
			return blockapi.Stall{}, context.Cause(ctx)
		}
	}
}

// hold switches HoldIO of the disk.
func (s *Server) hold(h blockapi.Hold) error {
	s.mu.Lock()
	d := s.disk
	s.mu.Unlock()
	if d != nil {
		d.HoldIO(h.On)
	}
	return nil
}
