package control

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// plan calls f with the fleet as the planner sees it, at one moment. It must not ask the records.
// Only of workers in fed, whose assignments were derived anew before, a report counts as fresh.
func (c *Control) plan(f func(plan.View), fed ...fleet.WorkerID) {
	l := look{c.obs, c.now(), fed}
	c.records.Plan(func(x *plan.Index) { f(plan.View{Index: x, Look: l}) })
}

// look is what the observer knows of workers at one moment.
type look struct {
	obs *observer
	now time.Time
	fed []fleet.WorkerID // sorted
}

func (l look) Health(id fleet.WorkerID) plan.Health { return l.obs.health(id, l.now) }

func (l look) ShutOut(id fleet.WorkerID) bool { return l.obs.isShutOut(id) }

func (l look) Pressed(id fleet.WorkerID) bool {
	report, _, _ := l.obs.report(id)
	return report != nil && report.Pressure.High()
}

func (l look) VMs(id fleet.WorkerID) ([]fleet.MachineID, bool) {
	report, _, current := l.obs.report(id)
	_, fed := slices.BinarySearch(l.fed, id)
	return vmsOf(report), current && fed
}

// place chooses a worker for a machine; see plan.Place. Nothing is booked.
func (c *Control) place(need plan.Need) (to fleet.WorkerID, b *fleet.Blocker) {
	c.plan(func(v plan.View) { to, b = plan.Place(v, need) })
	if b != nil {
		b.Since = c.now()
	}
	return to, b
}

// fits answers Invalid for a size that no worker of the fleet could ever carry. A fleet without
// workers has no such size.
func (c *Control) fits(need fleet.Resources) error {
	if need.CPUMillis <= 0 || need.MemoryMiB <= 0 {
		return errs.New(errs.Invalid, "a machine needs more than %.2f cpus and %d MiB",
			float64(need.CPUMillis)/1000, need.MemoryMiB).
			WithRemedy("ask for a positive number of cpus and MiB, as in --cpus 1 --memory 256")
	}
	var most fleet.Resources
	c.plan(func(v plan.View) { most = plan.Largest(v) })
	if most == (fleet.Resources{}) || most.Fits(need) {
		return nil
	}
	return errs.New(errs.Invalid,
		"no worker can ever run a machine of %.2f cpus and %d MiB: the largest has %.2f cpus and "+
			"%d MiB",
		float64(need.CPUMillis)/1000, need.MemoryMiB, float64(most.CPUMillis)/1000, most.MemoryMiB).
		WithRemedy("ask for at most that, or add a larger worker")
}

// exhausted makes an error of a blocker. A server that has just started doesn't know yet who is
// alive.
func (c *Control) exhausted(b *fleet.Blocker, name string) error {
	for _, w := range c.records.Workers.All() {
		if s := c.obs.sight(w.Val.ID, "", c.now()); s.Unheard && s.Health == plan.Suspect {
			const yet = "no worker for machine %s yet: this server has just started"
			return &fleet.NamesWorkers{
				Err: errs.New(errs.Unavailable, yet+", and has not heard of %s", name, w.Val.ID).
					WithRemedy("try again in a moment"),
				Else: errs.New(errs.Unavailable, yet, name).WithRemedy("try again in a moment")}
		}
	}
	const full = "no worker has room for machine %s"
	return &fleet.NamesWorkers{
		Err: errs.New(errs.Exhausted, full+": %s", name, b.Detail).WithRemedy("%s", b.Remedy),
		Else: errs.New(errs.Exhausted, full, name).
			WithRemedy("ask for less, stop a machine, or ask who runs the fleet for room")}
}

// knownWorker returns a worker's record; NotFound lists the workers there are.
func (c *Control) knownWorker(id fleet.WorkerID) (records.Row[fleet.Worker], error) {
	if w, ok := c.records.Workers.Get(id); ok {
		return w, nil
	}
	var names []string
	for _, w := range c.records.Workers.All() {
		names = append(names, string(w.Val.ID))
	}
	if len(names) == 0 {
		return records.Row[fleet.Worker]{},
			errs.New(errs.NotFound, "there is no worker %q: none has joined", id).
				WithRemedy("start one: sluice worker --name NAME …")
	}
	none := func(remedy string) error {
		return errs.New(errs.NotFound, "there is no worker %q", id).WithRemedy("%s", remedy)
	}
	return records.Row[fleet.Worker]{}, &fleet.NamesWorkers{
		Err:  none("the workers are: " + strings.Join(names, ", ")),
		Else: none("leave the worker out, or ask who runs the fleet for its name")}
}
