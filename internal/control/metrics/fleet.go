package metrics

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// MaxWorkers bounds the workers that have figures of their own. Those beyond are counted by
// sluice_workers_left_out. Workers that aren't alive come first.
const MaxWorkers = 500

// Fleet is what is asked of the control plane.
type Fleet interface {
	Machines(ctx context.Context, f fleet.MachineFilter) ([]fleet.MachineView, error)
	Workers(ctx context.Context) ([]fleet.WorkerView, error)
	Drains(ctx context.Context) ([]fleet.DrainView, error)
	Server(ctx context.Context) fleet.ServerView
}

// Watch has scrapes ask the fleet. A server that has not read its records yet tells only of itself.
func Watch(reg prometheus.Registerer, f Fleet) error { return reg.Register(&collector{fleet: f}) }

type collector struct{ fleet Fleet }

// Describe implements prometheus.Collector. The set of metrics isn't fixed, so nothing is
// described.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, t := context.Background(), teller{out: out}
	server := c.fleet.Server(ctx)
	t.gauge("sluice_brake_on",
		"1 while too many workers are down, and nothing is started automatically.",
		truth(server.Brake != ""))
	if machines, err := c.fleet.Machines(ctx, fleet.MachineFilter{}); err == nil {
		t.machines(machines)
	}
	if workers, err := c.fleet.Workers(ctx); err == nil {
		t.workers(workers)
	}
	if drains, err := c.fleet.Drains(ctx); err == nil {
		t.drains(drains)
	}
}

// teller writes metrics down.
type teller struct{ out chan<- prometheus.Metric }

// gauge tells one value; labels are names and values in turn.
func (t teller) gauge(name, help string, v float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(name, help, names, nil)
	t.out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, values...)
}

func (t teller) machines(all []fleet.MachineView) {
	type kind struct {
		state  fleet.MachineState
		health string
	}
	counts, steps, codes := map[kind]int{}, map[fleet.Step]int{}, map[string]int{}
	oldest := time.Time{}
	for i := range all {
		v := &all[i]
		health := "unknown"
		if v.Report != nil && v.Report.Healthy() {
			health = "healthy"
		} else if v.Report != nil {
			health = "unhealthy"
		}
		counts[kind{v.Machine.State, health}]++
		if v.Move == nil {
			continue
		}
		steps[v.Move.Step]++
		if b := v.Move.Blocker; b != nil {
			codes[b.Code]++
		}
		if oldest.IsZero() || v.Move.StartedAt.Before(oldest) {
			oldest = v.Move.StartedAt
		}
	}
	for k, n := range counts {
		t.gauge("sluice_machines",
			"Machines, by state and health; health is unknown where no worker tells.",
			float64(n), "state", string(k.state), "health", k.health)
	}
	for code, n := range codes {
		t.blockers("move", code, n)
	}
	for _, s := range fleet.Steps() {
		if !s.Final() {
			t.gauge("sluice_moves_active",
				"Moves that go on and own their machine, by the step that they have reached.",
				float64(steps[s]), "step", string(s))
		}
	}
	age := 0.0
	if !oldest.IsZero() {
		age = time.Since(oldest).Seconds()
	}
	t.gauge("sluice_move_oldest_seconds", "Age of the oldest move that goes on; 0: none does.", age)
}

func (t teller) workers(all []fleet.WorkerView) {
	type kind struct{ liveness, state string }
	counts := map[kind]int{}
	for i := range all {
		counts[kind{all[i].Liveness, string(all[i].State)}]++
	}
	for k, n := range counts {
		t.gauge("sluice_workers", "Workers, by liveness (alive, suspect, down) and state.",
			float64(n),
			"liveness", k.liveness, "state", k.state)
	}
	slices.SortStableFunc(all, func(a, b fleet.WorkerView) int { // they come ordered by id
		return cmp.Compare(truth(a.Liveness == alive), truth(b.Liveness == alive))
	})
	shown := all[:min(len(all), MaxWorkers)]
	t.gauge("sluice_workers_left_out", "Workers beyond the bound, without figures of their own.",
		float64(len(all)-len(shown)))
	for i := range shown {
		t.worker(&shown[i])
	}
}

// alive is the liveness of a worker that gets machines.
const alive = "alive"

// worker tells one worker's own figures.
func (t teller) worker(v *fleet.WorkerView) {
	id, used := string(v.Worker.ID), v.Allocation.Used()
	t.gauge("sluice_worker_alive", "1 while the worker reports; 0 once it is suspect or down.",
		truth(v.Liveness == alive), "worker", id)
	t.gauge("sluice_worker_cordoned", "1 while the worker takes no new machines.",
		truth(v.Worker.Cordoned), "worker", id)
	t.gauge("sluice_worker_machines", "Machines placed on the worker.",
		float64(v.Machines), "worker",
		id)
	t.gauge("sluice_worker_cpu_cores", "Cores for machines on the worker.",
		float64(v.Worker.Capacity.CPUMillis)/1000, "worker", id)
	t.gauge("sluice_worker_cpu_used_cores", "Cores of the worker that machines and moves hold.",
		float64(used.CPUMillis)/1000, "worker", id)
	t.gauge("sluice_worker_memory_bytes", "Memory for machines on the worker.",
		float64(v.Worker.Capacity.MemoryMiB<<20), "worker", id)
	t.gauge("sluice_worker_memory_used_bytes", "Memory of the worker that machines and moves hold.",
		float64(used.MemoryMiB<<20), "worker", id)
	if !v.LastSeen.IsZero() {
		t.gauge("sluice_worker_silent_seconds", "Time since the worker was heard of.",
			time.Since(v.LastSeen).Seconds(), "worker", id)
	}
}

func (t teller) drains(all []fleet.DrainView) {
	states, codes := map[fleet.DrainState]int{}, map[string]int{}
	for i := range all {
		d := &all[i].Drain
		states[d.State]++
		if d.State.Final() {
			continue
		}
		for _, b := range d.Blockers {
			codes[b.Code]++
		}
	}
	for _, s := range []fleet.DrainState{fleet.DrainRunning, fleet.DrainBlocked,
		fleet.DrainCancelling} {
		t.gauge("sluice_drains", "Drains that go on, by state.", float64(states[s]),
			"state", string(s))
	}
	for code, n := range codes {
		t.blockers("drain", code, n)
	}
}

// blockers tells how often something waits for one reason.
func (t teller) blockers(of, code string, n int) {
	t.gauge("sluice_blockers", "What drains and moves wait for, by code.", float64(n), "of", of,
		"code", code)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
