package plan

import (
	"fmt"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Need is what is to be placed.
type Need struct {
	Machine   fleet.MachineID // its own share of a worker counts as free, for it
	Resources fleet.Resources
	Isolation fleet.Isolation
	// Only, if set, is the one worker that will do.
	Only fleet.WorkerID
	// Exclude names workers that won't do, each with the reason for people.
	Exclude map[fleet.WorkerID]string
}

// NeedOf returns what a machine needs, on none of the workers of exclude.
func NeedOf(m fleet.Machine, exclude map[fleet.WorkerID]string) Need {
	return Need{Machine: m.ID, Resources: m.Config.Resources, Isolation: m.Config.Isolation,
		Exclude: exclude}
}

// Refusal is why one worker can't take a machine.
type Refusal struct {
	Worker fleet.WorkerID
	Code   string // excluded, isolation, cordoned, draining, drained, suspect, down, cpu, memory
	Detail string
	Remedy string // the command that changes it; "" if there is none
}

// Place chooses the worker with the least allocated share of its capacity, after the machine is on
// it; ties go to the smaller id. Where none will do it returns "" and a Blocker with code
// no-capacity whose Detail says why of every worker. The blocker's Since is the caller's to set.
func Place(v View, need Need) (fleet.WorkerID, *fleet.Blocker) {
	return newTally(v, fleet.Policy{}).place(need, nil)
}

// Refusals returns why each worker that can't take the machine can't, ordered by worker id.
func Refusals(v View, need Need) []Refusal {
	var all []Refusal
	for _, w := range newTally(v, fleet.Policy{}).workers {
		if r := refuse(w, need); r != nil {
			all = append(all, *r)
		}
	}
	return all
}

// Largest returns the biggest capacity for each resource over all workers: what is larger fits
// nowhere, ever.
func Largest(v View) fleet.Resources {
	var most fleet.Resources
	for _, w := range v.Workers {
		most.CPUMillis = max(most.CPUMillis, w.Capacity.CPUMillis)
		most.MemoryMiB = max(most.MemoryMiB, w.Capacity.MemoryMiB)
	}
	return most
}

// place is Place, counting the plan's own bookings; skip, if set, leaves out workers that are only
// busy now.
func (t *tally) place(need Need, skip func(Worker) bool) (fleet.WorkerID, *fleet.Blocker) {
	var best fleet.WorkerID
	var least float64
	var refusals []Refusal
	for _, w := range t.workers {
		if need.Only != "" && w.ID != need.Only {
			continue
		}
		if r := refuse(w, need); r != nil {
			refusals = append(refusals, *r)
			continue
		}
		if skip != nil && skip(w) {
			continue
		}
		if share := shareWith(w, need); best == "" || share < least {
			best, least = w.ID, share
		}
	}
	if best == "" {
		return "", noPlace(need, refusals)
	}
	return best, nil
}

// refusedIsolation is the code of a worker that doesn't keep machines apart as one asks.
const refusedIsolation = "isolation"

func refuse(w Worker, need Need) *Refusal {
	no := func(code, remedy, format string, args ...any) *Refusal {
		return &Refusal{Worker: w.ID, Code: code, Detail: fmt.Sprintf(format, args...),
			Remedy: remedy}
	}
	uncordon := fmt.Sprintf("sluice worker uncordon %s", w.ID)
	if why, ok := need.Exclude[w.ID]; ok {
		return no("excluded", "", "%s", why)
	}
	if !need.Isolation.GivenBy(w.Runtime) {
		return no(refusedIsolation, "", "runtime %s, whose machines share a kernel", w.Runtime)
	}
	switch {
	case w.Health == Down:
		return no("down", "", "down")
	case w.Drain != "":
		return no("draining", fmt.Sprintf("sluice drain cancel %s", w.Drain), "draining")
	case w.Drained:
		return no("drained", uncordon, "drained")
	case w.Cordoned:
		return no("cordoned", uncordon, "cordoned")
	case w.Health != Alive:
		return no("suspect", "", "not heard of lately")
	}
	free := w.Free()
	if own, ok := w.Allocation.Holders[need.Machine]; ok {
		free = free.Add(own.Resources)
	}
	if short := need.Resources.MemoryMiB - free.MemoryMiB; short > 0 {
		return no("memory", "", "%d MiB of memory free, %d short", max(free.MemoryMiB, 0), short)
	}
	if short := need.Resources.CPUMillis - free.CPUMillis; short > 0 {
		return no("cpu", "", "%.2f cpus free, %.2f short", float64(max(free.CPUMillis, 0))/1000,
			float64(short)/1000)
	}
	return nil
}

// shareWith is the larger of the worker's two allocated shares once the machine is on it.
func shareWith(w Worker, need Need) float64 {
	used := w.Allocation.Used().Add(need.Resources)
	if own, ok := w.Allocation.Holders[need.Machine]; ok {
		used = used.Sub(own.Resources)
	}
	return max(share(used.CPUMillis, w.Capacity.CPUMillis),
		share(used.MemoryMiB, w.Capacity.MemoryMiB))
}

func share(used, of int64) float64 {
	if of <= 0 {
		return 1
	}
	return float64(used) / float64(of)
}

// noPlace says of every worker why it won't do. The remedy is the first command that would free a
// worker.
func noPlace(need Need, refusals []Refusal) *fleet.Blocker {
	b := &fleet.Blocker{Code: fleet.CodeNoCapacity, Object: "machine/" + string(need.Machine),
		Remedy: "add a worker: sluice worker --name NAME …"}
	if need.Only != "" {
		b.Object = "worker/" + string(need.Only)
	}
	if need.Isolation != "" {
		b.Remedy = "add a worker whose VMs have kernels: sluice worker --runtime qemu --name NAME …"
	}
	if len(refusals) == 0 {
		b.Detail = "no worker has joined"
		return b
	}
	parts := make([]string, 0, len(refusals))
	found := false
	for _, r := range refusals {
		parts = append(parts, fmt.Sprintf("%s: %s", r.Worker, r.Detail))
		if r.Remedy != "" && !found {
			b.Remedy, found = r.Remedy, true
		}
	}
	b.Detail = fmt.Sprintf("needs %.2f cpus and %d MiB; %s", float64(need.Resources.CPUMillis)/1000,
		need.Resources.MemoryMiB, strings.Join(parts, "; "))
	return b
}
