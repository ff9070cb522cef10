// Package httpapitest has an in-memory fleet for tests of what stands in front of a control plane:
// the HTTP API, the client and the CLI. It keeps records and refuses what a real one refuses at
// once, but nothing happens in it by itself: a test says so with Update.
//
// Invariant: every mutation that succeeds is counted (Mutations), so that a test can show that a
// refused request changed nothing.
package httpapitest

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Fleet is the in-memory fleet. Safe for concurrent use.
type Fleet struct {
	mu         sync.Mutex
	machines   map[fleet.MachineID]*fleet.MachineView
	events     map[fleet.MachineID][]fleet.MachineEvent
	workers    map[fleet.WorkerID]*fleet.WorkerView
	drains     map[fleet.DrainID]*fleet.DrainView
	moves      map[fleet.MoveID]*fleet.MoveView
	images     map[fleet.ImageName]fleet.Image
	tokens     map[fleet.TokenID]fleet.Token
	secrets    map[string]fleet.Secret
	quotas     map[fleet.QuotaScope]fleet.Quota
	reports    []fleet.WorkerReport
	joins      []fleet.JoinRequest
	joinTokens []fleet.JoinToken
	revoked    map[fleet.WorkerID]int64 // up to which term
	refused    map[fleet.WorkerID][]func()
	mutations  int
	next       int
	changed    chan struct{}
	now        time.Time
	workerURL  string
	fail       error
}

var (
	_ fleet.Machines   = (*Fleet)(nil)
	_ fleet.Moves      = (*Fleet)(nil)
	_ fleet.Workers    = (*Fleet)(nil)
	_ fleet.Drains     = (*Fleet)(nil)
	_ fleet.Images     = (*Fleet)(nil)
	_ fleet.Keys       = (*Fleet)(nil)
	_ fleet.Secrets    = (*Fleet)(nil)
	_ fleet.Quotas     = (*Fleet)(nil)
	_ fleet.Status     = (*Fleet)(nil)
	_ fleet.Changes    = (*Fleet)(nil)
	_ fleet.WorkerFeed = (*Fleet)(nil)
	_ fleet.Locator    = (*Fleet)(nil)
	_ fleet.Tokens     = (*Fleet)(nil)
	_ fleet.Enrolment  = (*Fleet)(nil)
)

// New returns a fleet with two ready workers, w1 and w2, and the image "base".
func New() *Fleet {
	f := &Fleet{
		machines: map[fleet.MachineID]*fleet.MachineView{},
		revoked:  map[fleet.WorkerID]int64{},
		refused:  map[fleet.WorkerID][]func(){},
		events:   map[fleet.MachineID][]fleet.MachineEvent{},
		workers:  map[fleet.WorkerID]*fleet.WorkerView{},
		drains:   map[fleet.DrainID]*fleet.DrainView{},
		moves:    map[fleet.MoveID]*fleet.MoveView{}, images: map[fleet.ImageName]fleet.Image{},
		tokens:  map[fleet.TokenID]fleet.Token{},
		secrets: map[string]fleet.Secret{},
		quotas:  map[fleet.QuotaScope]fleet.Quota{},
		changed: make(chan struct{}), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
	}
	for i, id := range []fleet.WorkerID{"w1", "w2"} {
		f.workers[id] = &fleet.WorkerView{
			Worker: fleet.Worker{ID: id, Number: uint32(i + 1),
				Address:  netip.MustParseAddr("fd00:5:1::1"),
				APIURL:   "http://[fd00:5:1::1]:7600",
				Capacity: fleet.Resources{CPUMillis: 8000, MemoryMiB: 8192},
				Runtime:  "sandbox", Version: "v0.1.0", Release: "r1", JoinedAt: f.now},
			State: fleet.WorkerReady, LastSeen: f.now, SafeToStop: true,
			Allocation: fleet.Allocation{Worker: id,
				Holders: map[fleet.MachineID]fleet.Allocated{}},
			Report: &fleet.WorkerReport{Worker: id, PoolReady: 2},
		}
	}
	f.workers["w2"].Worker.Runtime = "qemu"
	f.workers["w2"].Report.Acceleration = &fleet.Acceleration{Kind: "tcg",
		Reason: "this host has no /dev/kvm"}
	f.workers["w2"].Report.Pressure = &fleet.Pressure{CPU: 0.93, Memory: 0.01, IO: 0.25, Load: 30.5,
		Cores: 2}
	f.images["base"] = fleet.Image{Name: "base", DiskURL: "file:///pool/disks/img-base-1",
		Checkpoint: "base",
		SizeBytes:  1 << 30, CreatedAt: f.now}
	return f
}

// Fail makes every call return err; nil ends that.
func (f *Fleet) Fail(err error) { f.Update(func(*Tx) { f.fail = err }) }

// SetWorkerURL is where WorkerOf sends calls for machines.
func (f *Fleet) SetWorkerURL(u string) { f.Update(func(*Tx) { f.workerURL = u }) }

// Mutations returns how many mutations succeeded.
func (f *Fleet) Mutations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mutations
}

// Reports returns what workers reported.
func (f *Fleet) Reports() []fleet.WorkerReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reports)
}

// Tx lets a test change records; everything in it is the fleet's own.
type Tx struct {
	Machines map[fleet.MachineID]*fleet.MachineView
	Events   map[fleet.MachineID][]fleet.MachineEvent
	Workers  map[fleet.WorkerID]*fleet.WorkerView
	Drains   map[fleet.DrainID]*fleet.DrainView
	Moves    map[fleet.MoveID]*fleet.MoveView
}

// Update changes the fleet and tells all who wait.
func (f *Fleet) Update(change func(*Tx)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&Tx{f.machines, f.events, f.workers, f.drains, f.moves})
	f.tellLocked()
}

func (f *Fleet) tellLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fleet) mutatedLocked() {
	f.mutations++
	f.tellLocked()
}

// Changed implements fleet.Changes.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Server implements fleet.Status.
func (f *Fleet) Server(context.Context) fleet.ServerView {
	return fleet.ServerView{FleetID: "test", StoreURL: "file:///pool", Started: f.now}
}

// Find implements fleet.Locator.
func (f *Fleet) Find(_ context.Context, ref string,
	sees func(fleet.Machine) bool) (fleet.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.findAmongLocked(ref, sees)
	if err != nil {
		return fleet.Machine{}, err
	}
	return v.Machine, nil
}

// findLocked resolves a reference as fleet.Machines does.
func (f *Fleet) findLocked(ref string) (*fleet.MachineView, error) {
	return f.findAmongLocked(ref, func(fleet.Machine) bool { return true })
}

func (f *Fleet) findAmongLocked(ref string,
	sees func(fleet.Machine) bool) (*fleet.MachineView, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	if v, ok := f.machines[fleet.MachineID(ref)]; ok && sees(v.Machine) {
		return v, nil
	}
	app, name, scoped := strings.Cut(ref, "/")
	var found []*fleet.MachineView
	for _, v := range f.machines {
		m := v.Machine
		if sees(m) && (scoped && string(m.App) == app && string(m.Name) == name || !scoped &&
			string(m.Name) == ref) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return nil, fleet.NoMachine(ref)
	case 1:
		return found[0], nil
	default:
		var machines []fleet.Machine
		for _, v := range found {
			machines = append(machines, v.Machine)
		}
		slices.SortFunc(machines,
			func(a, b fleet.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return nil, fleet.ManyMachines(ref, machines)
	}
}

func (f *Fleet) workerLocked(id fleet.WorkerID) (*fleet.WorkerView, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	if w, ok := f.workers[id]; ok {
		return w, nil
	}
	return nil, errs.New(errs.NotFound, "there is no worker %q", id).
		WithRemedy("see: sluice worker list")
}
