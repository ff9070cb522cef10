package control

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxEvents bounds a machine's history in the state; the newest are kept.
const maxEvents = 64

// Events of machines.
const (
	eventCreate  = "create"
	eventLaunch  = "launch"
	eventStart   = "start"
	eventStop    = "stop"
	eventExit    = "exit"
	eventLost    = "lost"
	eventDestroy = "destroy"
	eventStall   = "disk_stall" // the machine is paused because its disk's store has stalled
	eventResume  = "disk_resume"
)

// Sources of events.
const (
	sourceUser    = "user"
	sourceControl = "control"
)

func sourceWorker(id fleet.WorkerID) string { return "worker/" + string(id) }

// events adds lines to a machine's history, in the same transaction as what they tell of.
func (c *Control) events(ctx context.Context, t *txn, id fleet.MachineID, lines ...fleet.MachineEvent) error {
	ring, rev, err := c.readEvents(ctx, id)
	if err != nil {
		return err
	}
	for _, l := range lines {
		if l.Time.IsZero() {
			l.Time = c.now()
		}
		ring = append(ring, l)
	}
	if over := len(ring) - maxEvents; over > 0 {
		ring = slices.Delete(ring, 0, over)
	}
	t.put(keyEvents(id), rev, ring)
	return nil
}

// readEvents returns a machine's history, oldest first, and the revision of its record; 0 if it has none.
func (c *Control) readEvents(ctx context.Context, id fleet.MachineID) ([]fleet.MachineEvent, int64, error) {
	kv, err := c.deps.Store.Get(ctx, keyEvents(id))
	if errs.Is(err, errs.NotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var ring []fleet.MachineEvent
	if err := decode(kv, &ring); err != nil {
		return nil, 0, err
	}
	return ring, kv.ModRevision, nil
}
