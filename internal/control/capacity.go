package control

import (
	"fmt"
	"strings"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// view is the fleet as the planner sees it, with these machines.
func (c *Control) view(machines []fleet.Machine) plan.View {
	now := c.now()
	v := plan.View{Machines: machines, Locks: c.records.HeldLocks()}
	for _, w := range c.records.Workers.All() {
		v.Workers = append(v.Workers, c.planWorker(w.Val, now))
	}
	for _, mv := range c.records.ActiveMoves("") {
		if mv.Val.Step.Counts() {
			v.Moves = append(v.Moves, mv.Val)
		}
	}
	return v
}

// place chooses a worker for a machine; see plan.Place. Nothing is booked.
func (c *Control) place(need plan.Need) (fleet.WorkerID, *fleet.Blocker) {
	to, b := plan.Place(c.view(nil), need)
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
	most := plan.Largest(c.view(nil))
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
			return errs.New(errs.Unavailable,
				"no worker for machine %s yet: this server has just started, and has not heard "+
					"of %s", name, w.Val.ID).
				WithRemedy("try again in a moment")
		}
	}
	return errs.New(errs.Exhausted, "no worker has room for machine %s: %s", name, b.Detail).
		WithRemedy("%s", b.Remedy)
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
	return records.Row[fleet.Worker]{}, errs.New(errs.NotFound, "there is no worker %q", id).
		WithRemedy("%s", fmt.Sprintf("the workers are: %s", strings.Join(names, ", ")))
}
