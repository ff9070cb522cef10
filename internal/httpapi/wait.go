package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// rereadEvery bounds how stale a waiting answer can be if a change was announced before it was
// visible.
const rereadEvery = time.Second

// waits is what answers that wait for a change have in common.
type waits struct {
	changes   fleet.Changes
	lifetime  context.Context // ends when they shall end
	longPoll  time.Duration
	heartbeat time.Duration
}

// untilStop returns a context that also ends when the API stops, for answers that may last.
func (w waits) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	detach := context.AfterFunc(w.lifetime, cancel)
	return ctx, func() { detach(); cancel() }
}

// longPoll reads until done holds or the long poll is over, and returns what it read last.
func longPoll[T any](w waits, r *http.Request,
	read func() (T, error), done func(T) bool) (T, error) {
	ctx, cancel := w.untilStop(r.Context())
	defer cancel()
	deadline := time.NewTimer(w.longPoll)
	defer deadline.Stop()
	for {
		changed := w.changes.Changed() // before reading, so that no change falls between
		v, err := read()
		if err != nil || done(v) {
			return v, err
		}
		reread := time.NewTimer(rereadEvery)
		select {
		case <-changed:
		case <-reread.C:
		case <-deadline.C:
			return v, nil
		case <-ctx.Done():
			return v, nil
		}
		reread.Stop()
	}
}

// machineCondition returns when a wait for a machine is over. A machine that failed, or that is
// wanted otherwise, will not get there by waiting.
func machineCondition(wait string) (func(fleet.MachineView) bool, error) {
	switch wait {
	case "":
		return func(fleet.MachineView) bool { return true }, nil
	case "started":
		return func(v fleet.MachineView) bool {
			m := v.Machine
			return healthy(v) || m.State == fleet.MachineFailed || m.Desired != fleet.DesiredStarted
		}, nil
	case "stopped":
		return func(v fleet.MachineView) bool {
			m := v.Machine
			return m.State == fleet.MachineStopped || m.Desired != fleet.DesiredStopped
		}, nil
	case "settled":
		return func(v fleet.MachineView) bool {
			switch v.Machine.State {
			case fleet.MachineStarted, fleet.MachineStopped, fleet.MachineFailed:
				return v.Machine.Owner == ""
			default:
				return false
			}
		}, nil
	default:
		return nil, errs.New(errs.Invalid, "wait %q is not started, stopped or settled", wait)
	}
}

// healthy: started, and every check passes on the placement that counts.
func healthy(v fleet.MachineView) bool {
	return v.Machine.State == fleet.MachineStarted && v.Report != nil && v.Report.Healthy() &&
		v.Machine.Placement != nil && v.Report.Generation == v.Machine.Placement.Generation &&
		(v.Report.Stall == nil || !v.Report.Stall.Paused)
}

func moveCondition(wait string) (func(fleet.MoveView) bool, error) {
	switch wait {
	case "":
		return func(fleet.MoveView) bool { return true }, nil
	case "done":
		return func(v fleet.MoveView) bool { return v.Move.Step.Final() }, nil
	default:
		return nil, errs.New(errs.Invalid, "wait %q is not done", wait)
	}
}
