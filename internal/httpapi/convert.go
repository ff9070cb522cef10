package httpapi

import (
	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// This file turns the domain into wire types; see request.go for the other way.

func machineToAPI(v fleet.MachineView) api.Machine {
	m := v.Machine
	out := api.Machine{
		ID: string(m.ID), Name: string(m.Name), App: string(m.App), Network: string(m.Network),
		State: string(m.State), Desired: string(m.Desired), Reason: m.Reason,
		Generation: uint64(m.Generation), DiskURL: m.Disk.URL, Encrypted: m.DiskKey != 0,
		Operation: m.Owner,
		Config:    configToAPI(m.Config), CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt,
	}
	if p := m.Placement; p != nil {
		out.Worker, out.InstanceID = string(p.Worker), string(p.Instance)
		if p.Address.IsValid() {
			out.PrivateIP = p.Address.String()
		}
	}
	if r := v.Report; r != nil {
		out.Release, out.Version = string(r.Release), r.Version
		out.Healthy = healthy(v)
		out.Disk = api.DiskActivity(r.Disk)
		if r.Stall != nil {
			stall := api.DiskStall(*r.Stall)
			out.DiskStall = &stall
		}
		if r.OOM != nil {
			oom := api.OutOfMemory(*r.OOM)
			out.OutOfMemory = &oom
		}
		for _, s := range r.Services {
			out.Services = append(out.Services, api.ServiceInfo(s))
		}
	}
	return out
}

func configToAPI(c fleet.MachineConfig) api.MachineConfig {
	out := api.MachineConfig{
		Image: string(c.Image), CPUs: float64(c.Resources.CPUMillis) / 1000,
		MemoryMiB: c.Resources.MemoryMiB,
		DiskGiB:   c.DiskGiB, Env: c.Env, StopSignal: c.Stop.Signal,
		StopTimeout: c.Stop.Timeout.Seconds(), NoFile: c.NoFile, User: c.User,
		NoNewPrivileges: c.NoNewPrivileges, Isolation: string(c.Isolation),
	}
	for _, s := range c.Services {
		as := api.Service{Name: s.Name, Cmd: s.Cmd, Env: s.Env, Dir: s.Dir, HTTPPort: s.HTTPPort,
			Needs: s.Needs}
		if k := s.Check; k != nil {
			as.Check = &api.Check{Kind: string(k.Kind), Port: k.Port, Path: k.Path, Cmd: k.Cmd,
				Interval: k.Interval.Seconds(), Timeout: k.Timeout.Seconds(),
				Grace: k.Grace.Seconds()}
		}
		out.Services = append(out.Services, as)
	}
	return out
}

func eventToAPI(e fleet.MachineEvent) api.Event {
	return api.Event{Time: e.Time, State: string(e.State), Event: e.Event, Source: e.Source,
		InstanceID: string(e.Instance), Info: e.Info}
}

func eventsToAPI(events []fleet.MachineEvent) []api.Event {
	out := make([]api.Event, 0, len(events))
	for _, e := range events {
		out = append(out, eventToAPI(e))
	}
	return out
}

func workerToAPI(v fleet.WorkerView) api.Worker {
	w := v.Worker
	used := v.Allocation.Used()
	out := api.Worker{
		ID: string(w.ID), State: string(v.State), Runtime: w.Runtime, Version: w.Version,
		Release: string(w.Release),
		CPUs:    float64(w.Capacity.CPUMillis) / 1000, MemoryMiB: w.Capacity.MemoryMiB,
		CPUsUsed: float64(used.CPUMillis) / 1000, MemoryUsed: used.MemoryMiB,
		Machines: v.Machines, LastSeen: v.LastSeen, CordonReason: w.CordonReason,
		Drain:      string(w.Drain),
		SafeToStop: v.SafeToStop, Labels: w.Labels, JoinedAt: w.JoinedAt,
		RevokedAt: v.RevokedAt,
	}
	if w.Address.IsValid() {
		out.Address = w.Address.String()
	}
	for _, h := range v.Allocation.Holders {
		if h.Move != "" {
			out.Reserved++
		}
	}
	if r := v.Report; r != nil {
		out.PoolReady = r.PoolReady
		if k := r.StoreKey; k != nil {
			out.StoreKey = &api.StoreKey{Source: k.Source, Generation: k.Generation,
				KeyID: k.KeyID, Expires: k.Expires, Kept: k.Kept}
		}
		if a := r.Acceleration; a != nil {
			out.Acceleration, out.AccelerationReason = a.Kind, a.Reason
		}
		if p := r.Pressure; p != nil {
			out.Pressure = &api.Pressure{CPU: p.CPU, Memory: p.Memory, IO: p.IO, Load: p.Load,
				Cores: p.Cores, High: p.High()}
		}
		for _, c := range r.Conditions {
			out.Conditions = append(out.Conditions,
				api.Condition{Name: string(c.Name), Since: c.Since,
					Message: c.Message, Remedy: c.Remedy})
		}
	}
	return out
}

func drainToAPI(v fleet.DrainView) api.Drain {
	d := v.Drain
	out := api.Drain{
		ID: string(d.ID), Workers: make([]string, 0, len(d.Workers)), State: string(d.State),
		Total: d.Total,
		Moved: d.Moved, Moves: make([]api.Move, 0, len(v.Moves)), StartedAt: d.StartedAt,
		FinishedAt: d.FinishedAt, By: d.By,
	}
	for _, w := range d.Workers {
		out.Workers = append(out.Workers, string(w))
	}
	for _, b := range d.Blockers {
		out.Blockers = append(out.Blockers, api.Blocker(b))
	}
	for _, m := range v.Moves {
		out.Moves = append(out.Moves, moveToAPI(m))
	}
	return out
}

func moveToAPI(v fleet.MoveView) api.Move {
	m := v.Move
	out := api.Move{
		ID: string(m.ID), Machine: string(m.Machine), MachineName: string(v.MachineName),
		Network: string(m.Network),
		Drain:   string(m.Drain), Reason: string(m.Reason), From: string(m.From), To: string(m.To),
		Step:  string(m.Step),
		Steps: make([]api.Step, 0, len(m.Steps)), Proof: string(m.Proof), Error: m.Error,
		PauseMS:         m.PauseMS,
		DiskBytesCopied: m.DiskBytesCopied, StartedAt: m.StartedAt, FinishedAt: m.FinishedAt,
	}
	for _, s := range m.Steps {
		out.Steps = append(out.Steps, api.Step{Step: string(s.Step), At: s.At, Note: s.Note})
	}
	if b := m.Blocker; b != nil {
		blocker := api.Blocker(*b)
		out.Blocker = &blocker
	}
	return out
}

func imageToAPI(i fleet.Image) api.Image {
	out := api.Image{Name: string(i.Name), DiskURL: i.DiskURL, Checkpoint: i.Checkpoint,
		SizeBytes: i.SizeBytes,
		CreatedAt: i.CreatedAt, Notes: i.Notes}
	if i.Config != nil {
		config := api.ImageConfig(*i.Config)
		out.Config = &config
	}
	return out
}

// seconds turns a wire duration into ours; the range was checked before.
