package httpapitest

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CreateMachine implements fleet.Machines. The machine is started and healthy at once.
func (f *Fleet) CreateMachine(_ context.Context,
	req fleet.CreateMachine) (fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.MachineView{}, f.fail
	}
	if _, ok := f.images[req.Config.Image]; !ok {
		return fleet.MachineView{},
			errs.New(errs.NotFound, "there is no image %q", req.Config.Image).
				WithRemedy("see: sluice image list")
	}
	worker := req.Worker
	if worker == "" {
		worker = "w1"
	}
	if _, err := f.workerLocked(worker); err != nil {
		return fleet.MachineView{}, err
	}
	for _, v := range f.machines {
		if v.Machine.Network == req.Network && v.Machine.App == req.App &&
			v.Machine.Name == req.Name {
			return fleet.MachineView{},
				errs.New(errs.Exists, "app %q has a machine %q already", req.App, req.Name)
		}
	}
	f.next++
	id := fleet.MachineID(fmt.Sprintf("01%012x", f.next))
	v := &fleet.MachineView{Machine: fleet.Machine{ID: id, Name: req.Name, App: req.App,
		Network: req.Network, NetworkID: 1,
		Number: uint32(f.next), Config: req.Config,
		Disk:    fleet.StoreDisk("file:///pool/disks/" + string(id)),
		Desired: fleet.DesiredStarted,
		State:   fleet.MachineStarted, Generation: 1, CreatedAt: f.now, UpdatedAt: f.now,
		Placement: &fleet.Placement{Worker: worker, Generation: 1,
			Instance: "01J08P60K8NK33K9P5MQ5M4QN8",
			Address:  fleet.PrivateAddress(1, 1, uint32(f.next)), Since: f.now}},
		Report: &fleet.VMReport{Machine: id, Generation: 1, Phase: fleet.PhaseHealthy,
			Release: "r1", Version: "v0.1.0",
			Disk: fleet.DiskReport{Epoch: 1, Requests: 12, BytesRead: 4096, BytesWritten: 8192}}}
	for _, s := range req.Config.Services {
		v.Report.Services = append(v.Report.Services,
			fleet.ServiceReport{Name: s.Name, State: "ready", PID: 7})
	}
	if req.SkipStart {
		v.Machine.Desired, v.Machine.State, v.Machine.Placement, v.Report = fleet.DesiredStopped,
			fleet.MachineCreated, nil, nil
	}
	f.machines[id] = v
	f.events[id] = []fleet.MachineEvent{
		{Time: f.now, State: fleet.MachineCreated, Event: "create", Source: "user"},
		{Time: f.now, State: fleet.MachineStarted, Event: "start",
			Source: "worker/" + string(worker), Instance: "01J08P60K8NK33K9P5MQ5M4QN8"}}
	f.mutatedLocked()
	return *v, nil
}

// Machine implements fleet.Machines.
func (f *Fleet) Machine(_ context.Context, ref string) (fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findLocked(ref)
	if err != nil {
		return fleet.MachineView{}, err
	}
	return *v, nil
}

// Machines implements fleet.Machines.
func (f *Fleet) Machines(_ context.Context,
	of fleet.MachineFilter) ([]fleet.MachineView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.MachineView
	for _, v := range f.machines {
		if of.Covers(v.Machine) {
			out = append(out, *v)
		}
	}
	return out, f.fail
}

// MachineEvents implements fleet.Machines.
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

// StartMachine implements fleet.Machines.
func (f *Fleet) StartMachine(_ context.Context, ref string) (fleet.MachineView, error) {
	return f.change(ref, func(v *fleet.MachineView) error {
		v.Machine.Desired, v.Machine.State = fleet.DesiredStarted, fleet.MachineStarted
		v.Machine.Generation++
		v.Machine.Placement = &fleet.Placement{Worker: "w1", Generation: v.Machine.Generation,
			Instance: "01J08P60K8NK33K9P5MQ5M4QN9",
			Address:  fleet.PrivateAddress(1, 1, 1), Since: f.now}
		v.Report = &fleet.VMReport{Machine: v.Machine.ID, Generation: v.Machine.Generation,
			Phase: fleet.PhaseHealthy}
		return nil
	})
}

// StopMachine implements fleet.Machines.
func (f *Fleet) StopMachine(_ context.Context, ref string) (fleet.MachineView, error) {
	return f.change(ref, func(v *fleet.MachineView) error {
		v.Machine.Desired, v.Machine.State, v.Machine.Placement, v.Report = fleet.DesiredStopped,
			fleet.MachineStopped, nil, nil
		return nil
	})
}

// DestroyMachine implements fleet.Machines.
func (f *Fleet) DestroyMachine(_ context.Context, ref string) error {
	_, err := f.change(ref, func(v *fleet.MachineView) error {
		delete(f.machines, v.Machine.ID)
		return nil
	})
	return err
}

// Migrate implements fleet.Moves. The move is planned, and stays so until the test updates it.
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
		move = fleet.MoveView{MachineName: v.Machine.Name, App: v.Machine.App,
			Move: fleet.Move{ID: fleet.MoveID(fmt.Sprintf("01MOVE%020d", f.next)),
				Machine: v.Machine.ID, Network: v.Machine.Network, Reason: "migrate", From: "w1",
				To: to, Step: fleet.StepPlanned,
				Steps: []fleet.StepRecord{{Step: fleet.StepPlanned, At: f.now}}, StartedAt: f.now}}
		v.Machine.Owner = "move/" + string(move.Move.ID)
		kept := move
		f.moves[move.Move.ID] = &kept
		return nil
	})
	return move, err
}

// Move implements fleet.Moves.
func (f *Fleet) Move(_ context.Context, id fleet.MoveID) (fleet.MoveView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.moves[id]; ok {
		return *m, f.fail
	}
	return fleet.MoveView{}, fleet.NoMove(id)
}
