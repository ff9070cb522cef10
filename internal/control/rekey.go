package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A network is rekeyed in three parts, each of which can be repeated. First its record gets a newer
// key, and from then on whoever attaches a disk of it is told both. Then disk after disk is changed
// to the newer key. Once all are, the older key is dropped.

// RekeyNetwork implements fleet.Keys.
func (c *Control) RekeyNetwork(ctx context.Context,
	name fleet.NetworkName) (fleet.NetworkView, error) {
	if err := c.ready(); err != nil {
		return fleet.NetworkView{}, err
	}
	if c.deps.Keys == nil {
		return fleet.NetworkView{}, c.needKeys()
	}
	err := c.try(ctx, func() error {
		n, ok := c.records.Networks.Get(name)
		switch {
		case !ok:
			return errs.New(errs.NotFound, "there is no network %q", name).
				WithRemedy("list them: sluice network list")
		case len(n.Val.Keys) == 0:
			return errs.New(errs.NotFound, "no disk of network %s is encrypted", name).
				WithRemedy("machines that are created from now on have encrypted disks")
		case len(n.Val.Keys) > 1:
			return nil // it goes on with the one that is there
		}
		if _, err := c.openNetworkKeys(n.Val, 0); err != nil {
			return err // its disks could not be changed to another
		}
		t, next := c.records.Begin(), n.Val
		next.Keys = append([]fleet.NetworkKey{
			c.newNetworkKey(name, n.Val.Keys[0].Number+1)}, n.Val.Keys...)
		records.Set(t, n, next)
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.NetworkView{}, err
	}
	n, _ := c.records.Networks.Get(name)
	return c.networkView(n.Val), nil
}

// Networks implements fleet.Keys.
func (c *Control) Networks(context.Context) ([]fleet.NetworkView, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	views := []fleet.NetworkView{}
	for _, n := range c.records.Networks.All() {
		views = append(views, c.networkView(n.Val))
	}
	return views, nil
}

func (c *Control) networkView(n fleet.Network) fleet.NetworkView {
	v := fleet.NetworkView{Name: n.Name}
	if len(n.Keys) == 0 {
		return v
	}
	v.Key = n.Keys[0].Number
	for _, m := range c.records.MachinesIn(n.Name, "") {
		if m.DiskKey == 0 {
			continue
		}
		v.Encrypted++
		if m.DiskKey == v.Key {
			continue
		}
		b := fleet.Blocker{Code: "rekey", Object: string(m.ID), Since: n.Keys[0].Made,
			Detail: fmt.Sprintf("the disk of machine %s is changed soon", m.Name)}
		if why := busyForRekey(*m); why != "" {
			b.Detail = fmt.Sprintf("the disk of machine %s is changed when the machine runs or is "+
				"stopped: %s", m.Name, why)
			b.Remedy = fmt.Sprintf("see sluice machine status %s/%s", m.App, m.Name)
		}
		v.Waiting = append(v.Waiting, b)
	}
	return v
}

// busyForRekey returns why a disk can't change its key now; "" if it can. A VM that is about to
// attach the disk may have been told the older key only. One that has attached it needs none any
// more, and whoever is told later is told both.
func busyForRekey(m fleet.Machine) string {
	switch {
	case m.Owner != "":
		return "it is in operation " + m.Owner
	case m.Desired == fleet.DesiredDestroyed:
		return "it is being destroyed"
	case m.Placement != nil && m.State != fleet.MachineStarted:
		return cmp.Or(m.Reason, "it is "+string(m.State))
	}
	return ""
}

// enqueueRekey enqueues a network if its disks are being changed to another key.
func (c *Control) enqueueRekey(name fleet.NetworkName) {
	if n, ok := c.records.Networks.Get(name); ok && len(n.Val.Keys) > 1 {
		c.slow.add(queueRekey + string(name))
	}
}

// reconcileRekey changes those disks of a network to its newest key that can be now, and drops the
// older keys once no disk needs them.
func (c *Control) reconcileRekey(ctx context.Context, name fleet.NetworkName) error {
	n, ok := c.records.Networks.Get(name)
	if !ok || len(n.Val.Keys) < 2 || c.deps.Keys == nil {
		return nil
	}
	newest, left := n.Val.Keys[0].Number, 0
	var failed error
	for _, m := range c.records.MachinesIn(name, "") {
		if m.DiskKey == 0 || m.DiskKey == newest {
			continue
		}
		left++
		if busyForRekey(*m) != "" {
			continue
		}
		done, err := c.rekeyDisk(ctx, m.ID, newest)
		failed = errors.Join(failed, err)
		if done {
			left--
		}
	}
	if left > 0 || failed != nil {
		return failed
	}
	t, next := c.records.Begin(), n.Val
	next.Keys = slices.Clone(n.Val.Keys[:1])
	records.Set(t, n, next) // conflicts with a machine that was created meanwhile: look again then
	if err := t.Commit(ctx); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "a network's disks have its new key; the older is dropped",
		"network", string(name), "key", int(newest))
	return nil
}

// rekeyDisk changes the disk of a machine to its network's newest key, and notes that; false if it
// can't be now.
func (c *Control) rekeyDisk(ctx context.Context, id fleet.MachineID, newest uint32) (bool, error) {
	unlock, err := c.disks.lock(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	m, ok := c.records.Machines.Get(id)
	if !ok || busyForRekey(m.Val) != "" {
		return !ok, nil
	}
	all, err := c.diskKEK(m.Val)
	if err != nil {
		return false, err
	}
	keys, err := c.diskKeys(m.Val, newest)
	if err != nil {
		return false, err
	}
	next, err := kek.NewRing(keys...)
	if err != nil {
		return false, err
	}
	if err := c.deps.Disks.Rekey(ctx, m.Val.Disk.URL, all, next); err != nil {
		return false, fmt.Errorf("change the key of disk %s: %w", m.Val.Disk.URL, err)
	}
	return true, c.try(ctx, func() error { return c.noteRekeyed(ctx, id, newest) })
}

func (c *Control) noteRekeyed(ctx context.Context, id fleet.MachineID, newest uint32) error {
	m, ok := c.records.Machines.Get(id)
	if !ok {
		return nil
	}
	t, next := c.records.Begin(), m.Val
	next.DiskKey = newest
	t.SetMachine(m, next)
	if err := c.events(ctx, t, id, fleet.MachineEvent{State: m.Val.State, Event: eventRekey,
		Source: sourceControl,
		Info:   map[string]string{"key": strconv.Itoa(int(newest))}}); err != nil {
		return err
	}
	return t.Commit(ctx)
}
