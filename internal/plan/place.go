package plan

import (
	"fmt"
	"maps"
	"slices"
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
	// Calm: a worker whose host is under pressure won't do either.
	Calm bool
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
// no-capacity whose Detail says why of the first workers, and of the others how many there are for
// each reason. The blocker's Since is the caller's to set.
func Place(v View, need Need) (fleet.WorkerID, *fleet.Blocker) {
	t := newTally(v, fleet.Policy{})
	if e := t.best(need, nil); e != nil {
		return e.id, nil
	}
	return "", t.noPlace(need)
}

// Refusals returns why each worker that can't take the machine can't, ordered by worker id.
func Refusals(v View, need Need) []Refusal {
	t := newTally(v, fleet.Policy{})
	var all []Refusal
	for _, e := range t.order {
		if code := t.refused(e, need); code != "" {
			all = append(all, t.refusal(e, need, code))
		}
	}
	return all
}

// Largest returns the biggest capacity for each resource over all workers: what is larger fits
// nowhere, ever.
func Largest(v View) fleet.Resources {
	var most fleet.Resources
	for _, e := range v.order {
		most.CPUMillis = max(most.CPUMillis, e.rec.Capacity.CPUMillis)
		most.MemoryMiB = max(most.MemoryMiB, e.rec.Capacity.MemoryMiB)
	}
	return most
}

// Codes of refusals.
const (
	refusedExcluded  = "excluded"
	refusedIsolation = "isolation" // it doesn't keep machines apart as one asks
	refusedDown      = "down"
	refusedDraining  = "draining"
	refusedDrained   = "drained"
	refusedCordoned  = "cordoned"
	refusedSuspect   = "suspect"
	refusedMemory    = "memory"
	refusedCPU       = "cpu"
	underPressure    = "under pressure"
)

// refused returns the code of why a worker can't take a machine; "" if it can.
func (t *tally) refused(e *entry, need Need) string {
	w := e.rec
	if w == nil {
		return refusedDown
	}
	if _, ok := need.Exclude[e.id]; ok || need.Calm && t.Look.Pressed(e.id) {
		return refusedExcluded
	}
	if !need.Isolation.GivenBy(w.Runtime) {
		return refusedIsolation
	}
	health := t.Look.Health(e.id)
	switch {
	case health == Down:
		return refusedDown
	case w.Drain != "":
		return refusedDraining
	case w.Drained:
		return refusedDrained
	case w.Cordoned:
		return refusedCordoned
	case health != Alive:
		return refusedSuspect
	}
	short := need.Resources.Sub(w.Capacity.Sub(t.usedWithout(e, need.Machine)))
	switch {
	case short.MemoryMiB > 0:
		return refusedMemory
	case short.CPUMillis > 0:
		return refusedCPU
	}
	return ""
}

// refusal returns a refusal in words.
func (t *tally) refusal(e *entry, need Need, code string) Refusal {
	r := Refusal{Worker: e.id, Code: code, Detail: code}
	free := e.rec.Capacity.Sub(t.usedWithout(e, need.Machine))
	short := need.Resources.Sub(free)
	switch code {
	case refusedExcluded:
		r.Detail = underPressure
		if why, ok := need.Exclude[e.id]; ok && !(need.Calm && t.Look.Pressed(e.id)) {
			r.Detail = why
		}
	case refusedIsolation:
		r.Detail = fmt.Sprintf("runtime %s, whose machines share a kernel", e.rec.Runtime)
	case refusedDraining:
		r.Remedy = fmt.Sprintf("sluice drain cancel %s", e.rec.Drain)
	case refusedDrained, refusedCordoned:
		r.Remedy = fmt.Sprintf("sluice worker uncordon %s", e.id)
	case refusedSuspect:
		r.Detail = "not heard of lately"
	case refusedMemory:
		r.Detail = fmt.Sprintf("%d MiB of memory free, %d short", max(free.MemoryMiB, 0),
			short.MemoryMiB)
	case refusedCPU:
		r.Detail = fmt.Sprintf("%.2f cpus free, %.2f short", float64(max(free.CPUMillis, 0))/1000,
			float64(short.CPUMillis)/1000)
	}
	return r
}

// mostTold is of how many workers a blocker says why they won't do. It is kept in records.
const mostTold = 20

// noPlace says why no worker will do: of the first, each by itself, and of the others in numbers.
// The remedy is the first command that would free a worker.
func (t *tally) noPlace(need Need) *fleet.Blocker {
	b := &fleet.Blocker{Code: fleet.CodeNoCapacity, Object: "machine/" + string(need.Machine),
		Remedy: "add a worker: sluice worker --name NAME …"}
	if need.Only != "" {
		b.Object = "worker/" + string(need.Only)
	}
	if need.Isolation != "" {
		b.Remedy = "add a worker whose VMs have kernels: sluice worker --runtime qemu --name NAME …"
	}
	var told []string
	found, more := false, map[string]int{}
	for _, e := range t.order {
		if need.Only != "" && e.id != need.Only {
			continue
		}
		code := t.refused(e, need)
		if code == "" {
			continue // it is only busy now
		}
		if len(told) == mostTold && found {
			more[code]++
			continue
		}
		r := t.refusal(e, need, code)
		if r.Remedy != "" && !found {
			b.Remedy, found = r.Remedy, true
		}
		if len(told) == mostTold {
			more[code]++
			continue
		}
		told = append(told, fmt.Sprintf("%s: %s", e.id, r.Detail))
	}
	if len(told) == 0 {
		b.Detail = "no worker has joined"
		return b
	}
	b.Detail = fmt.Sprintf("needs %.2f cpus and %d MiB; %s", float64(need.Resources.CPUMillis)/1000,
		need.Resources.MemoryMiB, strings.Join(told, "; "))
	if len(more) > 0 {
		b.Detail += "; and " + counted(more)
	}
	return b
}

// counted says how many more workers there are for each reason.
func counted(more map[string]int) string {
	total, parts := 0, make([]string, 0, len(more))
	for _, code := range slices.Sorted(maps.Keys(more)) {
		total += more[code]
		parts = append(parts, fmt.Sprintf("%d %s", more[code], code))
	}
	return fmt.Sprintf("%d more (%s)", total, strings.Join(parts, ", "))
}
