package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CreateMachine implements fleet.Machines. It returns once the machine has its disk and, unless
// SkipStart, its place; the worker brings it up meanwhile. After an error nothing of it is left, or
// is being removed.
func (c *Control) CreateMachine(ctx context.Context,
	req fleet.CreateMachine) (fleet.MachineView, error) {
	if err := c.ready(); err != nil {
		return fleet.MachineView{}, err
	}
	if err := c.checkCreate(req); err != nil {
		return fleet.MachineView{}, err
	}
	var id fleet.MachineID
	err := c.tryIn(ctx, req.Network, func() error {
		var err error
		id, err = c.recordMachine(ctx, req)
		return err
	})
	if err != nil {
		return fleet.MachineView{}, err
	}
	if err := c.makeDisk(ctx, id); err != nil {
		return fleet.MachineView{}, c.undoCreate(ctx, id, err)
	}
	return c.Machine(ctx, string(id))
}

// recordMachine writes a new machine, its name, its number in its network, and its share of a
// worker in one transaction. The owner keeps everybody off it until it has a disk.
func (c *Control) recordMachine(ctx context.Context,
	req fleet.CreateMachine) (fleet.MachineID, error) {
	now := c.now()
	id := c.deps.IDs.Machine(c.cfg.Cell)
	m := fleet.Machine{ID: id, Name: req.Name, App: req.App, Network: req.Network,
		Config: req.Config, Disk: fleet.StoreDisk(c.diskURL(id)),
		Desired: fleet.DesiredStarted, State: fleet.MachineCreated,
		Owner: ownerCreate + c.deps.IDs.ULID(now), CreatedAt: now}
	if _, taken := c.nameOf(m); taken {
		return "", errs.New(errs.Exists, "there is a machine %s in app %s already", req.Name,
			req.App).
			WithRemedy("choose another name, or: sluice machine destroy %s/%s", req.App, req.Name)
	}
	t := c.records.Begin()
	if err := c.numberIn(t, &m, req.Encrypt); err != nil {
		return "", err
	}
	if req.SkipStart {
		m.Desired = fleet.DesiredStopped
		if req.Worker != "" {
			return "", errs.New(errs.Invalid, "machine %s is not to be started, and is to be on %s",
				req.Name, req.Worker).
				WithRemedy("leave one out: which worker it gets is decided when it starts")
		}
	} else if err := c.reserveFirst(t, &m, req.Worker); err != nil {
		return "", err
	}
	records.Set(t, c.records.FullNames.New(records.FullName(m)), m.ID)
	t.SetMachine(c.records.Machines.New(m.ID), m)
	if err := c.withinQuota(t); err != nil {
		return "", err
	}
	records.Set(t, records.NewHistory(m.ID), []fleet.MachineEvent{
		{Time: now, State: fleet.MachineCreated, Event: eventCreate, Source: sourceUser}})
	return id, t.Commit(ctx)
}

// nameOf returns the record of a machine's name in its network; false if nobody has that name
// there. A name that an older release gave counts in the network of the machine that has it.
func (c *Control) nameOf(m fleet.Machine) (records.Row[fleet.MachineID], bool) {
	if name, ok := c.records.FullNames.Get(records.FullName(m)); ok {
		return name, true
	}
	name, ok := c.records.FullNames.Get(records.FormerFullName(m))
	has, _ := c.records.Machines.Get(name.Val)
	return name, ok && has.Val.Network == m.Network
}

// reserveFirst gives a new machine its first place. It isn't assigned before its owner lets go of
// it.
func (c *Control) reserveFirst(t *records.Txn, m *fleet.Machine, only fleet.WorkerID) error {
	need := plan.NeedOf(*m, nil)
	if need.Only = only; only != "" {
		if _, err := c.knownWorker(only); err != nil {
			return err
		}
	}
	to, blocker := c.place(need)
	if blocker != nil {
		return c.exhausted(blocker, string(m.Name))
	}
	w, _ := c.records.Workers.Get(to)
	m.Generation = 1
	m.Placement = c.placementOn(*m, w.Val, 1, fleet.InstanceID(c.deps.IDs.ULID(c.now())))
	m.Placement.Named = only != ""
	t.ExpectWorker(to)
	t.Hold(to, m.ID, fleet.Allocated{Resources: m.Config.Resources})
	return nil
}

// numberIn gives a new machine its number in its network, which is made if there is none of that
// name. Unless its disk is to be in the clear, the network has a key then.
func (c *Control) numberIn(t *records.Txn, m *fleet.Machine, encrypt *bool) error {
	n, ok := c.records.Networks.Get(m.Network)
	if !ok {
		count := c.records.Counters()
		count.Val.Network++
		records.Set(t, count, count.Val)
		n.Val = fleet.Network{Name: m.Network, ID: count.Val.Network, NextNumber: 1}
	}
	m.NetworkID, m.Number = n.Val.ID, n.Val.NextNumber
	n.Val.NextNumber++
	if c.deps.Keys != nil && (encrypt == nil || *encrypt) {
		if len(n.Val.Keys) == 0 {
			n.Val.Keys = []fleet.NetworkKey{c.newNetworkKey(m.Network, 1)}
		}
		m.DiskKey = n.Val.Keys[0].Number
	} else if encrypt != nil && *encrypt {
		return c.needKeys()
	}
	records.Set(t, n, n.Val)
	return nil
}

func (c *Control) diskURL(id fleet.MachineID) string {
	base, query, has := strings.Cut(c.cfg.StoreURL, "?")
	url := strings.TrimSuffix(base, "/") + "/disks/" + string(id)
	if has {
		url += "?" + query
	}
	return url
}

// ownerDoc is what stands beside a machine's disk: enough to bring it up in another fleet.
type ownerDoc struct {
	Format  int                 `json:"format"`
	ID      fleet.MachineID     `json:"id"`
	Name    fleet.MachineName   `json:"name"`
	App     fleet.AppName       `json:"app"`
	Network fleet.NetworkName   `json:"network"`
	Config  fleet.MachineConfig `json:"config"`
	Fleet   string              `json:"fleet"`
}

// makeDisk forks the machine's disk from its image and ends its creation. Repeated after a crash.
func (c *Control) makeDisk(ctx context.Context, id fleet.MachineID) error {
	unlock, err := c.disks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	m, ok := c.records.Machines.Get(id)
	if !ok || !strings.HasPrefix(m.Val.Owner, ownerCreate) {
		return nil
	}
	if m.Val.Desired == fleet.DesiredDestroyed {
		return c.try(ctx, func() error { return c.endCreate(ctx, id) })
	}
	image, ok := c.records.Images.Get(m.Val.Config.Image)
	if !ok {
		return noImage(m.Val.Config.Image)
	}
	key, err := c.diskKEK(m.Val)
	if err != nil {
		return err
	}
	if err := c.deps.Disks.ForkImage(ctx, image.Val, m.Val.Disk.URL,
		m.Val.Config.DiskGiB<<30, key); err != nil {
		return fmt.Errorf("fork image %s for machine %s: %w", image.Val.Name, m.Val.Name, err)
	}
	doc, err := json.Marshal(ownerDoc{Format: 1, ID: id, Name: m.Val.Name, App: m.Val.App,
		Network: m.Val.Network, Config: m.Val.Config, Fleet: c.cfg.FleetID})
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the owner's document of machine %s", id)
	}
	if err := c.deps.Disks.WriteOwner(ctx, m.Val.Disk.URL, doc); err != nil {
		return fmt.Errorf("write the owner's document of machine %s: %w", m.Val.Name, err)
	}
	return c.try(ctx, func() error { return c.endCreate(ctx, id) })
}

// endCreate ends a machine's creation: from this commit on its worker is told to run it.
func (c *Control) endCreate(ctx context.Context, id fleet.MachineID) error {
	m, ok := c.records.Machines.Get(id)
	if !ok || !strings.HasPrefix(m.Val.Owner, ownerCreate) {
		return nil
	}
	t, next := c.records.Begin(), m.Val
	next.Owner = ""
	if next.Placement == nil || next.Desired == fleet.DesiredDestroyed {
		if next.Placement != nil {
			t.Release(next.Placement.Worker, id)
			next.Placement = nil
		}
		t.SetMachine(m, next)
		return t.Commit(ctx)
	}
	next.State = fleet.MachineStarting
	p := *next.Placement
	p.Since = c.now() // the time it may take to start begins now
	next.Placement = &p
	t.SetMachine(m, next)
	ev := fleet.MachineEvent{State: fleet.MachineCreated, Event: eventLaunch, Source: sourceControl,
		Instance: p.Instance, Info: map[string]string{"worker": string(p.Worker)}}
	if err := c.events(ctx, t, id, ev); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// undoCreate takes back a creation whose disk could not be made, and returns why. Where that fails
// too, or the caller has gone away, the record says what is to happen, and it is tried again.
func (c *Control) undoCreate(ctx context.Context, id fleet.MachineID, why error) error {
	if ctx.Err() != nil {
		return why // somebody gave up waiting; the machine is being created all the same
	}
	err := c.try(ctx, func() error {
		m, ok := c.records.Machines.Get(id)
		if !ok {
			return nil
		}
		t, next := c.records.Begin(), m.Val
		next.Desired, next.State, next.Owner, next.Reason = fleet.DesiredDestroyed,
			fleet.MachineDestroying, "", why.Error()
		if next.Placement != nil && strings.HasPrefix(m.Val.Owner, ownerCreate) {
			t.Release(next.Placement.Worker, id)
			next.Placement = nil
		}
		t.SetMachine(m, next)
		return t.Commit(ctx)
	})
	if err == nil {
		err = c.reconcileDisk(ctx, id)
	}
	if err != nil {
		c.log.WarnContext(ctx, "creation not taken back yet", "machine_id", id, "error", err)
	}
	return why
}

// reconcileDisk makes or destroys a machine's disk, as its record asks.
func (c *Control) reconcileDisk(ctx context.Context, id fleet.MachineID) error {
	m, ok := c.records.Machines.Get(id)
	switch {
	case !ok:
		return nil
	case strings.HasPrefix(m.Val.Owner, ownerCreate):
		return c.makeDisk(ctx, id)
	case m.Val.Desired == fleet.DesiredDestroyed && m.Val.Owner == "" && m.Val.Placement == nil:
		return c.erase(ctx, id)
	}
	return nil
}

// erase destroys the disk of a machine that is nowhere, and then its record.
func (c *Control) erase(ctx context.Context, id fleet.MachineID) error {
	unlock, err := c.disks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	m, ok := c.records.Machines.Get(id)
	if !ok || m.Val.Desired != fleet.DesiredDestroyed || m.Val.Placement != nil ||
		m.Val.Owner != "" {
		return nil
	}
	if err := c.deps.Disks.Destroy(ctx, m.Val.Disk.URL); err != nil {
		return fmt.Errorf("destroy disk %s: %w", m.Val.Disk.URL, err)
	}
	t := c.records.Begin()
	records.Delete(t, m)
	if name, ok := c.nameOf(m.Val); ok && name.Val == id {
		records.Delete(t, name)
	}
	history, err := c.records.History(ctx, id)
	if err != nil {
		return err
	}
	records.Delete(t, history)
	c.retries.forget(id)
	return t.Commit(ctx)
}
