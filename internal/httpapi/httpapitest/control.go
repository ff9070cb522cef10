package httpapitest

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CreateMachine implements fleet.Control. The machine is started and healthy at once.
func (f *Fleet) CreateMachine(_ context.Context, req fleet.CreateMachine) (fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.MachineView{}, f.fail
	}
	if _, ok := f.images[req.Config.Image]; !ok {
		return fleet.MachineView{}, errs.New(errs.NotFound, "there is no image %q", req.Config.Image).WithRemedy("see: sluice image list")
	}
	worker := req.Worker
	if worker == "" {
		worker = "w1"
	}
	if _, err := f.workerLocked(worker); err != nil {
		return fleet.MachineView{}, err
	}
	for _, v := range f.machines {
		if v.Machine.App == req.App && v.Machine.Name == req.Name {
			return fleet.MachineView{}, errs.New(errs.Exists, "app %q has a machine %q already", req.App, req.Name)
		}
	}
	f.next++
	id := fleet.MachineID(fmt.Sprintf("01%012x", f.next))
	v := &fleet.MachineView{Machine: fleet.Machine{ID: id, Name: req.Name, App: req.App, Network: req.Network, NetworkID: 1,
		Number: uint32(f.next), Config: req.Config, Disk: fleet.StoreDisk("file:///pool/disks/" + string(id)), Desired: fleet.WantStarted,
		State: fleet.MachineStarted, Generation: 1, CreatedAt: f.now, UpdatedAt: f.now,
		Placement: &fleet.Placement{Worker: worker, Generation: 1, Instance: "01J08P60K8NK33K9P5MQ5M4QN8",
			Address: fleet.PrivateAddress(1, 1, uint32(f.next)), Since: f.now}},
		Report: &fleet.VMReport{Machine: id, Generation: 1, Phase: fleet.PhaseHealthy, Release: "r1", Version: "v0.1.0",
			Disk: fleet.DiskReport{Epoch: 1, Requests: 12, BytesRead: 4096, BytesWritten: 8192}}}
	for _, s := range req.Config.Services {
		v.Report.Services = append(v.Report.Services, fleet.ServiceReport{Name: s.Name, State: "ready", PID: 7})
	}
	if req.SkipStart {
		v.Machine.Desired, v.Machine.State, v.Machine.Placement, v.Report = fleet.WantStopped, fleet.MachineCreated, nil, nil
	}
	f.machines[id] = v
	f.events[id] = []fleet.MachineEvent{
		{Time: f.now, State: fleet.MachineCreated, Event: "create", Source: "user"},
		{Time: f.now, State: fleet.MachineStarted, Event: "start", Source: "worker/" + string(worker), Instance: "01J08P60K8NK33K9P5MQ5M4QN8"}}
	f.mutatedLocked()
	return *v, nil
}

// Machine implements fleet.Control.
func (f *Fleet) Machine(_ context.Context, ref string) (fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err != nil {
		return fleet.MachineView{}, err
	}
	return *v, nil
}

// Machines implements fleet.Control.
func (f *Fleet) Machines(context.Context) ([]fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.MachineView
	for _, v := range f.machines {
		out = append(out, *v)
	}
	return out, f.fail
}

// MachineEvents implements fleet.Control.
func (f *Fleet) MachineEvents(_ context.Context, ref string) ([]fleet.MachineEvent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err != nil {
		return nil, err
	}
	return slices.Clone(f.events[v.Machine.ID]), nil
}

// change does one mutation of a machine.
func (f *Fleet) change(ref string, do func(*fleet.MachineView) error) (fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err == nil {
		err = do(v)
	}
	if err != nil {
		return fleet.MachineView{}, err
	}
	f.mutatedLocked()
	return *v, nil
}

// StartMachine implements fleet.Control.
func (f *Fleet) StartMachine(_ context.Context, ref string) (fleet.MachineView, error) {
	return f.change(ref, func(v *fleet.MachineView) error {
		v.Machine.Desired, v.Machine.State = fleet.WantStarted, fleet.MachineStarted
		v.Machine.Generation++
		v.Machine.Placement = &fleet.Placement{Worker: "w1", Generation: v.Machine.Generation, Instance: "01J08P60K8NK33K9P5MQ5M4QN9",
			Address: fleet.PrivateAddress(1, 1, 1), Since: f.now}
		v.Report = &fleet.VMReport{Machine: v.Machine.ID, Generation: v.Machine.Generation, Phase: fleet.PhaseHealthy}
		return nil
	})
}

// StopMachine implements fleet.Control.
func (f *Fleet) StopMachine(_ context.Context, ref string) (fleet.MachineView, error) {
	return f.change(ref, func(v *fleet.MachineView) error {
		v.Machine.Desired, v.Machine.State, v.Machine.Placement, v.Report = fleet.WantStopped, fleet.MachineStopped, nil, nil
		return nil
	})
}

// DestroyMachine implements fleet.Control.
func (f *Fleet) DestroyMachine(_ context.Context, ref string) error {
	_, err := f.change(ref, func(v *fleet.MachineView) error {
		delete(f.machines, v.Machine.ID)
		return nil
	})
	return err
}

// Migrate implements fleet.Control. The move is planned, and stays so until the test updates it.
func (f *Fleet) Migrate(_ context.Context, ref string, to fleet.WorkerID) (fleet.MoveView, error) {
	var move fleet.MoveView
	_, err := f.change(ref, func(v *fleet.MachineView) error {
		if to == "" {
			to = "w2"
		}
		if _, err := f.workerLocked(to); err != nil {
			return err
		}
		if v.Machine.Owner != "" {
			return errs.New(errs.Conflict, "machine %q is busy with %s", ref, v.Machine.Owner)
		}
		f.next++
		move = fleet.MoveView{MachineName: v.Machine.Name, Move: fleet.Move{ID: fleet.MoveID(fmt.Sprintf("01MOVE%020d", f.next)),
			Machine: v.Machine.ID, Network: v.Machine.Network, Reason: "migrate", From: "w1", To: to, Step: fleet.StepPlanned,
			Steps: []fleet.StepRecord{{Step: fleet.StepPlanned, At: f.now}}, StartedAt: f.now}}
		v.Machine.Owner = "move/" + string(move.Move.ID)
		kept := move
		f.moves[move.Move.ID] = &kept
		return nil
	})
	return move, err
}

// Move implements fleet.Control.
func (f *Fleet) Move(_ context.Context, id fleet.MoveID) (fleet.MoveView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.moves[id]; ok {
		return *m, f.fail
	}
	return fleet.MoveView{}, errs.New(errs.NotFound, "there is no move %q", id)
}

// Workers implements fleet.Control.
func (f *Fleet) Workers(context.Context) ([]fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.WorkerView
	for _, w := range f.workers {
		out = append(out, *w)
	}
	return out, f.fail
}

// Worker implements fleet.Control.
func (f *Fleet) Worker(_ context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workerLocked(id)
	if err != nil {
		return fleet.WorkerView{}, err
	}
	return *w, nil
}

func (f *Fleet) setCordon(id fleet.WorkerID, state fleet.WorkerState, reason string) (fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workerLocked(id)
	if err != nil {
		return fleet.WorkerView{}, err
	}
	w.State, w.Worker.Cordoned, w.Worker.CordonReason = state, state == fleet.WorkerCordoned, reason
	f.mutatedLocked()
	return *w, nil
}

// Cordon implements fleet.Control.
func (f *Fleet) Cordon(_ context.Context, id fleet.WorkerID, reason string) (fleet.WorkerView, error) {
	return f.setCordon(id, fleet.WorkerCordoned, reason)
}

// Uncordon implements fleet.Control.
func (f *Fleet) Uncordon(_ context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	return f.setCordon(id, fleet.WorkerReady, "")
}

// StartDrain implements fleet.Control. The drain runs until the test updates it.
func (f *Fleet) StartDrain(_ context.Context, workers []fleet.WorkerID, by string) (fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range workers {
		w, err := f.workerLocked(id)
		if err != nil {
			return fleet.DrainView{}, err
		}
		if w.Worker.Drain != "" {
			return fleet.DrainView{}, errs.New(errs.Conflict, "worker %q is being drained by %s", id, w.Worker.Drain).
				WithRemedy("watch it with: sluice drain watch %s", w.Worker.Drain)
		}
	}
	f.next++
	d := &fleet.DrainView{Drain: fleet.Drain{ID: fleet.DrainID(fmt.Sprintf("01DRAIN%019d", f.next)), Workers: workers,
		State: fleet.DrainRunning, StartedAt: f.now, By: by}}
	for _, id := range workers {
		f.workers[id].Worker.Drain, f.workers[id].State = d.Drain.ID, fleet.WorkerDraining
	}
	f.drains[d.Drain.ID] = d
	f.mutatedLocked()
	return *d, nil
}

// Drain implements fleet.Control.
func (f *Fleet) Drain(_ context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.DrainView{}, f.fail
	}
	if d, ok := f.drains[id]; ok {
		out := *d
		out.Moves = slices.Clone(d.Moves)
		return out, nil
	}
	return fleet.DrainView{}, errs.New(errs.NotFound, "there is no drain %q", id).WithRemedy("see: sluice drain list")
}

// Drains implements fleet.Control.
func (f *Fleet) Drains(context.Context) ([]fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.DrainView
	for _, d := range f.drains {
		out = append(out, *d)
	}
	return out, f.fail
}

// CancelDrain implements fleet.Control.
func (f *Fleet) CancelDrain(ctx context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	if _, err := f.Drain(ctx, id); err != nil {
		return fleet.DrainView{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.drains[id]
	if d.Drain.State.Final() {
		return fleet.DrainView{}, errs.New(errs.Conflict, "drain %s has ended", id)
	}
	d.Drain.State = fleet.DrainCancelled
	f.mutatedLocked()
	return *d, nil
}

// CreateImage implements fleet.Control. It reads the whole archive.
func (f *Fleet) CreateImage(_ context.Context, name fleet.ImageName, size int64, tar io.Reader) (fleet.Image, error) {
	f.mu.Lock()
	_, exists := f.images[name]
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		return fleet.Image{}, fail
	}
	if exists {
		return fleet.Image{}, errs.New(errs.Exists, "there is an image %q already", name).WithRemedy("choose another name")
	}
	if _, err := io.Copy(io.Discard, tar); err != nil {
		return fleet.Image{}, errs.Wrap(errs.Invalid, err, "read the archive of image %q", name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[name] = fleet.Image{Name: name, DiskURL: "file:///pool/disks/img-" + string(name), Checkpoint: "base", SizeBytes: size, CreatedAt: f.now}
	f.mutatedLocked()
	return f.images[name], nil
}

// Images implements fleet.Control.
func (f *Fleet) Images(context.Context) ([]fleet.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.Image
	for _, i := range f.images {
		out = append(out, i)
	}
	return out, f.fail
}

// Join implements fleet.WorkerFeed.
func (f *Fleet) Join(_ context.Context, req fleet.JoinRequest) (fleet.JoinAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !req.Address.IsValid() {
		return fleet.JoinAnswer{}, errs.New(errs.Invalid, "worker %q joins without an address", req.Worker)
	}
	f.joins = append(f.joins, req)
	f.mutatedLocked()
	return fleet.JoinAnswer{Number: uint32(len(f.joins)), StoreURL: "file:///pool", FleetID: "test"}, f.fail
}

// Assignments implements fleet.WorkerFeed: revision 1 holds nothing; it waits for ctx when asked after it.
func (f *Fleet) Assignments(ctx context.Context, worker fleet.WorkerID, after int64) (fleet.AssignmentSet, error) {
	if after == 1 {
		<-ctx.Done()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.workerLocked(worker); err != nil {
		return fleet.AssignmentSet{}, err
	}
	return fleet.AssignmentSet{Worker: worker, Revision: 1, Peers: []fleet.Peer{{Worker: "w2", Number: 2, Address: netip.IPv6LinkLocalAllNodes()}}}, nil
}

// Report implements fleet.WorkerFeed.
func (f *Fleet) Report(_ context.Context, report fleet.WorkerReport) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.reports = append(f.reports, report)
	f.mutatedLocked()
	return nil
}

// WorkerOf implements fleet.Locator.
func (f *Fleet) WorkerOf(_ context.Context, ref string) (fleet.MachineID, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err != nil {
		return "", "", err
	}
	if v.Machine.State != fleet.MachineStarted {
		return "", "", errs.New(errs.Unavailable, "machine %q is %s", ref, v.Machine.State).
			WithRemedy("try again in a second, or start it with: sluice machine start %s", ref)
	}
	return v.Machine.ID, f.workerURL, nil
}
