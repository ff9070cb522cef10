package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// setUp makes a fleet of three to five workers and an image.
func (w *world) setUp() {
	w.startServer()
	n := 3 + w.rng.IntN(3)
	for i := range n {
		k := &worker{w: w, id: fleet.WorkerID(fmt.Sprintf("w%d", i+1)), up: true, daemon: true,
			known: map[fleet.MachineID]*known{}, warmed: map[fleet.MachineID]fleet.Generation{},
			capacity: fleet.Resources{CPUMillis: 8000, MemoryMiB: 256 * int64(2+w.rng.IntN(4))}}
		w.workers = append(w.workers, k)
		w.after(w.between(0, 500*time.Millisecond), k.heartbeat)
	}
	w.after(time.Second, w.userActs)
	w.after(2*time.Second, w.badLuck)
	w.image()
}

// image is made by trying until it is there.
func (w *world) image() {
	if s := w.server(); s != nil {
		if images, err := s.c.Images(s.ctx); err == nil && len(images) > 0 {
			return
		}
		_, _ = s.c.CreateImage(s.ctx, "base", baseImage, nil) // it may fail, and be there
	}
	w.after(200*time.Millisecond, w.image)
}

// heal ends all faults.
func (w *world) heal() {
	w.healed = true
	w.now = w.end
	w.logf("all faults end")
	for _, s := range w.servers {
		if s.old {
			s.die()
		}
	}
	if w.server() == nil {
		w.startServer()
	}
	for _, k := range w.workers {
		k.cut, k.pressure = false, fleet.Pressure{}
		k.startHost()
		k.startDaemon()
	}
}

// badLuck is what happens to processes and hosts.
func (w *world) badLuck() {
	if w.healed {
		return
	}
	w.after(w.between(300*time.Millisecond, 2500*time.Millisecond), w.badLuck)
	k := w.workers[w.rng.IntN(len(w.workers))]
	k.pressure.CPU = float64(w.rng.IntN(100)) / 100
	switch n := w.rng.IntN(10); {
	case n == 0:
		if s := w.server(); s != nil {
			w.logf("%s is killed", s.name)
			s.die()
		}
	case n == 1 && !w.opt.Calm:
		if s := w.server(); s != nil {
			s.usurp()
		}
	case n <= 3:
		k.killDaemon(w.between(100*time.Millisecond, 1500*time.Millisecond))
	case w.opt.Calm:
	case n == 4:
		k.killDaemon(w.between(time.Second, 15*time.Second))
	case n == 5:
		k.killHost(w.between(time.Second, 30*time.Second))
	case n == 6:
		k.cutOff(w.between(time.Second, 30*time.Second))
	case n == 7:
		for _, id := range k.vms() { // one VM dies
			k.known[id].life.vm.kill()
			k.noticed(id)
			break
		}
	}
}

// userActs does something that a user or an operator may do, at any moment.
func (w *world) userActs() {
	if w.healed {
		return
	}
	w.after(w.between(50*time.Millisecond, 1000*time.Millisecond), w.userActs)
	s := w.server()
	if s == nil {
		return
	}
	var err error
	what := ""
	ctx, m, k := s.ctx, w.anyMachine(), w.workers[w.rng.IntN(len(w.workers))]
	switch n := w.rng.IntN(20); {
	case n < 5 || m == "":
		req := w.newMachine(k.id)
		what = "create " + string(req.Name)
		_, err = s.c.CreateMachine(ctx, req)
	case n < 7:
		what = "stop " + m
		_, err = s.c.StopMachine(ctx, m)
	case n < 9:
		what = "start " + m
		_, err = s.c.StartMachine(ctx, m)
	case n < 10:
		what = "destroy " + m
		err = s.c.DestroyMachine(ctx, m)
	case n < 12:
		what = "migrate " + m
		to := k.id
		if w.rng.IntN(2) == 0 {
			to = ""
		}
		_, err = s.c.Migrate(ctx, m, to)
	case n < 15:
		set := []fleet.WorkerID{k.id}
		if w.rng.IntN(3) == 0 {
			set = append(set, w.workers[w.rng.IntN(len(w.workers))].id)
		}
		what = fmt.Sprintf("drain %v", set)
		_, err = s.c.StartDrain(ctx, set, "sim")
	case n < 16:
		id := w.anyDrain()
		what = "cancel " + string(id)
		_, err = s.c.CancelDrain(ctx, id)
	case n < 17:
		what = "cordon " + string(k.id)
		_, err = s.c.Cordon(ctx, k.id, "")
	default:
		what = "uncordon " + string(k.id)
		_, err = s.c.Uncordon(ctx, k.id)
	}
	w.logf("user: %s: %v", what, err)
	s.converge()
}

// newMachine is what a user asks for who makes a machine, now and then on a worker that is named.
func (w *world) newMachine(worker fleet.WorkerID) fleet.CreateMachine {
	w.names++
	req := fleet.CreateMachine{Name: fleet.MachineName(fmt.Sprintf("m%d", w.names)), App: "app"}
	if w.chance(250) {
		req.Worker = worker
	}
	req.Network = fleet.NetworkName(fmt.Sprintf("n%d", w.rng.IntN(3)))
	if req.SkipStart = w.chance(100); req.SkipStart {
		req.Worker = "" // which a machine gets that is started
	}
	memory := 128 * int64(1+w.rng.IntN(2))
	req.Config = fleet.MachineConfig{Image: "base",
		Resources: fleet.Resources{CPUMillis: 500, MemoryMiB: memory}}
	return req
}

func (w *world) anyMachine() string {
	ids := slices.Sorted(maps.Keys(w.shadow.machines))
	if len(ids) == 0 {
		return ""
	}
	return string(ids[w.rng.IntN(len(ids))])
}

func (w *world) anyDrain() fleet.DrainID {
	var ids []fleet.DrainID
	for _, id := range slices.Sorted(maps.Keys(w.shadow.drains)) {
		if !w.shadow.drains[id].State.Final() {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "none"
	}
	return ids[w.rng.IntN(len(ids))]
}
