package control

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// find resolves a reference to any machine.
func (c *Control) find(ref string) (records.Row[fleet.Machine], error) {
	return c.findAmong(ref, func(fleet.Machine) bool { return true })
}

// Find implements fleet.Locator.
func (c *Control) Find(_ context.Context, ref string,
	sees func(fleet.Machine) bool) (fleet.Machine, error) {
	if err := c.ready(); err != nil {
		return fleet.Machine{}, err
	}
	m, err := c.findAmong(ref, sees)
	return m.Val, err
}

// mostNamed bounds how many machines of one name are looked for.
const mostNamed = 1000

// findAmong resolves a reference among the machines that sees holds for: a machine id, app/name, or
// a name, which is unique among them. Never a prefix.
func (c *Control) findAmong(ref string,
	sees func(fleet.Machine) bool) (records.Row[fleet.Machine], error) {
	if fleet.IsMachineID(ref) {
		if m, ok := c.records.Machines.Get(fleet.MachineID(ref)); ok && sees(m.Val) {
			return m, nil
		}
	}
	app, name, ofApp := strings.Cut(ref, "/")
	if !ofApp {
		app, name = "", ref
	}
	if ofApp && app == "" {
		return records.Row[fleet.Machine]{}, fleet.NoMachine(ref)
	}
	found := c.records.Named(fleet.MachineName(name), fleet.AppName(app), sees, mostNamed)
	switch len(found) {
	case 0:
		return records.Row[fleet.Machine]{}, fleet.NoMachine(ref)
	case 1:
		return found[0], nil
	}
	var machines []fleet.Machine
	for _, m := range found {
		machines = append(machines, m.Val)
	}
	return records.Row[fleet.Machine]{}, fleet.ManyMachines(ref, machines)
}

// Machine implements fleet.Machines.
func (c *Control) Machine(_ context.Context, ref string) (fleet.MachineView, error) {
	if err := c.ready(); err != nil {
		return fleet.MachineView{}, err
	}
	m, err := c.find(ref)
	if err != nil {
		return fleet.MachineView{}, err
	}
	return c.machineView(m.Val), nil
}

// Machines implements fleet.Machines.
func (c *Control) Machines(_ context.Context, f fleet.MachineFilter) ([]fleet.MachineView, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	var views []fleet.MachineView
	for _, m := range c.machinesOf(f) {
		if f.Covers(*m) {
			views = append(views, c.machineView(*m))
		}
	}
	slices.SortFunc(views, func(a, b fleet.MachineView) int {
		return strings.Compare(string(a.Machine.App)+"/"+string(a.Machine.Name),
			string(b.Machine.App)+"/"+string(b.Machine.Name))
	})
	return views, nil
}

// machinesOf returns the machines among which those of a filter are; as few as an index has.
func (c *Control) machinesOf(f fleet.MachineFilter) []*fleet.Machine {
	switch {
	case f.Worker != "":
		return c.records.PlacedOn(f.Worker)
	case len(f.Networks) > 0:
		var all []*fleet.Machine
		for _, n := range f.Networks {
			all = append(all, c.records.MachinesIn(n, f.App)...)
		}
		return all
	}
	return c.records.AllMachines()
}

// MachineEvents implements fleet.Machines; oldest first.
func (c *Control) MachineEvents(ctx context.Context, ref string) ([]fleet.MachineEvent, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	m, err := c.find(ref)
	if err != nil {
		return nil, err
	}
	history, err := c.records.History(ctx, m.Val.ID)
	return history.Val, err
}

func (c *Control) machineView(m fleet.Machine) fleet.MachineView {
	v := fleet.MachineView{Machine: m}
	for _, mv := range c.records.ActiveMoves(m.ID) {
		if m.Owner == moveOwner(mv.Val.ID) {
			move := c.overlay(mv.Val)
			v.Move = &move
		}
	}
	if m.Placement != nil {
		if s := c.obs.sight(m.Placement.Worker, m.ID, c.now()); s.VM != nil &&
			s.Health != plan.Down && s.VM.Generation == m.Placement.Generation {
			v.Report = s.VM
		}
	}
	if v.Move != nil && v.Move.Step.StandsStill() {
		v.Machine.State = fleet.MachineMoving
	}
	return v
}

// overlay shows how far a move's target is by its report, which is ahead of the record.
func (c *Control) overlay(mv fleet.Move) fleet.Move {
	s := c.obs.sight(mv.To, mv.Machine, c.now())
	if shown := plan.ReportedStep(mv, s.VM); shown != "" {
		mv.Step = shown
	}
	return mv
}

func (c *Control) moveView(mv fleet.Move) fleet.MoveView {
	v := fleet.MoveView{Move: c.overlay(mv)}
	if m, ok := c.records.Machines.Get(mv.Machine); ok {
		v.MachineName, v.App = m.Val.Name, m.Val.App
	}
	return v
}

// Move implements fleet.Moves.
func (c *Control) Move(_ context.Context, id fleet.MoveID) (fleet.MoveView, error) {
	if err := c.ready(); err != nil {
		return fleet.MoveView{}, err
	}
	mv, ok := c.records.Moves.Get(id)
	if !ok {
		return fleet.MoveView{}, fleet.NoMove(id)
	}
	return c.moveView(mv.Val), nil
}

// CreateImage implements fleet.Images.
func (c *Control) CreateImage(ctx context.Context, name fleet.ImageName, sizeBytes int64,
	tar io.Reader) (fleet.Image, error) {
	if err := c.ready(); err != nil {
		return fleet.Image{}, err
	}
	if err := fleet.CheckName("image", string(name)); err != nil {
		return fleet.Image{}, err
	}
	exists := errs.New(errs.Exists, "there is an image %s already", name).
		WithRemedy("choose another name")
	if _, taken := c.records.Images.Get(name); taken {
		return fleet.Image{}, exists
	}
	// What has no room is refused before it is read, and again if others have come first.
	asked := fleet.Image{Name: name, SizeBytes: sizeBytes}
	if err := c.withinQuota(c.imageTxn(asked)); err != nil {
		return fleet.Image{}, err
	}
	image, err := c.deps.Images.Build(ctx, name, sizeBytes, tar)
	if err != nil {
		return fleet.Image{}, fmt.Errorf("build image %s: %w", name, err)
	}
	err = c.try(ctx, func() error {
		if _, taken := c.records.Images.Get(name); taken {
			return exists
		}
		t := c.imageTxn(image)
		if err := c.withinQuota(t); err != nil {
			return err
		}
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.Image{}, err
	}
	return image, nil
}

// imageTxn returns a transaction that records a new image.
func (c *Control) imageTxn(image fleet.Image) *records.Txn {
	t := c.records.Begin()
	records.Set(t, c.records.Images.New(image.Name), image)
	return t
}

// Images implements fleet.Images; ordered by name.
func (c *Control) Images(context.Context) ([]fleet.Image, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	var images []fleet.Image
	for _, i := range c.records.Images.All() {
		images = append(images, i.Val)
	}
	return images, nil
}

// Server implements fleet.Status.
func (c *Control) Server(context.Context) fleet.ServerView {
	return fleet.ServerView{FleetID: c.cfg.FleetID, StoreURL: c.cfg.StoreURL, Brake: c.braked(),
		Started: c.started}
}

// WorkerOf implements fleet.Locator.
func (c *Control) WorkerOf(_ context.Context, ref string) (fleet.MachineID, fleet.WorkerAPI,
	error) {
	if err := c.ready(); err != nil {
		return "", fleet.WorkerAPI{}, err
	}
	m, err := c.find(ref)
	if err != nil {
		return "", fleet.WorkerAPI{}, err
	}
	v := c.machineView(m.Val)
	no := func(format string, args ...any) (fleet.MachineID, fleet.WorkerAPI, error) {
		return m.Val.ID, fleet.WorkerAPI{}, errs.New(errs.Unavailable, "machine %s "+format,
			append([]any{m.Val.Name}, args...)...).
			WithRemedy("sluice machine status %s/%s", m.Val.App, m.Val.Name)
	}
	switch {
	case m.Val.Placement == nil && m.Val.Desired == fleet.DesiredStopped:
		return m.Val.ID, fleet.WorkerAPI{}, errs.New(errs.Conflict, "machine %s is %s", m.Val.Name,
			v.Machine.State).
			WithRemedy("sluice machine start %s/%s", m.Val.App, m.Val.Name)
	case m.Val.Placement == nil:
		return no("is %s", v.Machine.State)
	case c.obs.health(m.Val.Placement.Worker, c.now()) == plan.Down:
		return no("was on %s, which is down", m.Val.Placement.Worker)
	case v.Report == nil || !plan.HasVM(v.Report) || v.Report.Phase == fleet.PhaseAttaching ||
		v.Report.Phase == fleet.PhaseStopping:
		return no("is %s and can't be reached yet", v.Machine.State)
	case v.Move != nil && v.Move.Step.SourceToldToStop() &&
		m.Val.Placement.Generation == v.Move.FromGen:
		return no("is being moved from %s to %s", v.Move.From, v.Move.To)
	}
	w, err := c.knownWorker(m.Val.Placement.Worker)
	if err != nil {
		return m.Val.ID, fleet.WorkerAPI{}, err
	}
	who, _ := c.records.Identities.Get(w.Val.ID)
	if who.Val.IsRevoked() {
		return no("is on %s, which is revoked", w.Val.ID)
	}
	return m.Val.ID,
		fleet.WorkerAPI{Worker: w.Val.ID, URL: w.Val.APIURL, Term: who.Val.Term}, nil
}
