package control

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
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
	eventOOM     = "out_of_memory"   // the kernel has killed a process of the machine
	eventSilent  = "platform_silent" // the platform in its VM answers nothing
	eventAnswers = "platform_answers"
	eventSecret  = "secret"           // a secret of its app was set or unset
	eventDiskKey = "disk_key"         // somebody was given the key of its disk
	eventRekey   = "rekey"            // its disk was changed to a newer key
	eventRestart = "platform_restart" // it was started again, while the machine went on
)

// Sources of events.
const (
	sourceUser    = "user"
	sourceControl = "control"
)

func sourceWorker(id fleet.WorkerID) string { return "worker/" + string(id) }

// events adds lines to a machine's history, in the same transaction as what they tell of.
func (c *Control) events(ctx context.Context, t *records.Txn, id fleet.MachineID,
	lines ...fleet.MachineEvent) error {
	history, err := c.records.History(ctx, id)
	if err != nil {
		return err
	}
	ring := history.Val
	for _, l := range lines {
		if l.Time.IsZero() {
			l.Time = c.now()
		}
		ring = append(ring, l)
	}
	if over := len(ring) - maxEvents; over > 0 {
		ring = slices.Delete(ring, 0, over)
	}
	records.Set(t, history, ring)
	return nil
}

// counted is something that a VM only counts, told by an event that says how many there were by
// now.
type counted struct {
	event, key string
	count      int64
	last       time.Time
	info       map[string]string // what else the event says
}

// countedBy returns what a VM has counted.
func countedBy(v *fleet.VMReport) []counted {
	var all []counted
	if v.OOM != nil {
		all = append(all, counted{event: eventOOM, key: "kills", count: v.OOM.Kills,
			last: v.OOM.Last})
	}
	if p := v.Platform; p != nil {
		all = append(all, counted{event: eventRestart, key: "restarts", count: p.Count,
			last: p.Last, info: map[string]string{"reason": p.Reason}})
	}
	return all
}

// noteCounted notes what a machine's VM has counted, and reports whether that was news. The newest
// line is counted up where it tells of it already: a machine that does nothing else must not push
// out the rest.
func (c *Control) noteCounted(ctx context.Context, m records.Row[fleet.Machine], s plan.Sight,
	y counted) (bool, error) {
	history, err := c.records.History(ctx, m.Val.ID)
	if err != nil {
		return false, err
	}
	ring := history.Val
	count := strconv.FormatInt(y.count, 10)
	line := fleet.MachineEvent{Time: y.last, State: m.Val.State, Event: y.event,
		Source:   sourceWorker(s.Worker),
		Instance: m.Val.Placement.Instance, Info: map[string]string{y.key: count}}
	maps.Copy(line.Info, y.info)
	isSame := func(e fleet.MachineEvent) bool {
		return e.Event == y.event && e.Instance == line.Instance
	}
	for _, e := range slices.Backward(ring) {
		if isSame(e) {
			if known, err := strconv.ParseInt(e.Info[y.key], 10, 64); err == nil &&
				known >= y.count {
				return false, nil
			}
			break
		}
	}
	t := c.records.Begin()
	if n := len(ring); n > 0 && isSame(ring[n-1]) {
		ring[n-1] = line
		records.Set(t, history, ring)
		return true, t.Commit(ctx)
	}
	if err := c.events(ctx, t, m.Val.ID, line); err != nil {
		return false, err
	}
	return true, t.Commit(ctx)
}
