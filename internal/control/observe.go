package control

import (
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// observer keeps what workers said, in memory only: after a restart they say it again.
type observer struct {
	policy fleet.Policy

	mu      sync.Mutex
	grace   time.Time // silence counts from here: the start of the server
	workers map[fleet.WorkerID]*observed
}

// observed is what is known of one worker beside its record.
type observed struct {
	contact  plan.Contact
	judged   plan.Health
	report   *fleet.WorkerReport // the newest; its contents are never changed
	received time.Time
	// boots has the newest sequence heard of each boot of the daemon. Which of two boots is the
	// later nobody says, so a late report of an earlier one may be taken for news; the present
	// one's next report wins again.
	boots map[string]int64
	feed  feed
	vms   map[fleet.MachineID]sighting // since when which VM is reported
	// starts has how long machines that are being started here have come no further.
	starts map[fleet.MachineID]*startWatch
	// shutOut: its certificates are revoked. It is down, whatever was heard of it.
	shutOut bool
}

// sighting is when a machine's VM was first heard of.
type sighting struct {
	vm   fleet.VMID
	i    int // where the newest report has it
	at   time.Time
	told []fleet.ServiceReport // what the machine's history has been told of its services
}

// noteVMs remembers since when a worker has reported each machine's VM.
func (w *observed) noteVMs(reports []fleet.VMReport, now time.Time) {
	old := w.vms
	w.vms = make(map[fleet.MachineID]sighting, len(reports))
	for i, v := range reports {
		if !v.HasVM {
			continue
		}
		s, known := old[v.Machine]
		if !known || s.vm != v.VM {
			s = sighting{vm: v.VM, at: now}
		}
		s.i = i
		w.vms[v.Machine] = s
	}
}

// feed is the worker's newest assignments, without peers.
type feed struct {
	set   fleet.AssignmentSet
	from  derivedFrom
	since time.Time // when it became what it is
	// strangers are machines that the report has, and that nothing of the records has there
	strangers []fleet.MachineID
}

func newObserver(policy fleet.Policy, now time.Time) *observer {
	return &observer{policy: policy, grace: now, workers: map[fleet.WorkerID]*observed{}}
}

func (o *observer) getLocked(id fleet.WorkerID) *observed {
	w := o.workers[id]
	if w == nil {
		w = &observed{boots: map[string]int64{}}
		o.workers[id] = w
	}
	return w
}

// heard notes a sign of life.
func (o *observer) heard(id fleet.WorkerID, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.getLocked(id)
	w.contact = w.contact.Heard(now, o.policy)
}

// maxBoots bounds how many boots of a worker are remembered.
const maxBoots = 16

// take keeps a report unless a newer one has been taken. It returns the machines of which the
// worker says something else than before, and whether anything changed that people or plans look
// at.
func (o *observer) take(r fleet.WorkerReport,
	now time.Time) (machines []fleet.MachineID, changed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.getLocked(r.Worker)
	if newest, known := w.boots[r.Boot]; known && r.Sequence <= newest {
		return nil, false
	}
	old := w.report
	if old != nil && old.Boot != r.Boot && len(w.boots) >= maxBoots {
		clear(w.boots)
		w.boots[old.Boot] = old.Sequence
	}
	w.boots[r.Boot] = r.Sequence
	w.contact = w.contact.Heard(now, o.policy)
	w.contact.Share = r.Pressure.Share()
	w.report, w.received = &r, now
	w.noteVMs(r.VMs, now)
	if old == nil {
		old = &fleet.WorkerReport{}
	}
	machines = differing(old.VMs, r.VMs)
	changed = len(machines) > 0 || old.Seen != r.Seen || old.PoolReady != r.PoolReady ||
		!slices.EqualFunc(old.Conditions, r.Conditions, fleet.Condition.Same) ||
		!sameAcceleration(old.Acceleration, r.Acceleration)
	return machines, changed
}

func sameAcceleration(a, b *fleet.Acceleration) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// differing returns the machines that two reports say something different of, ordered by id.
func differing(old, now []fleet.VMReport) []fleet.MachineID {
	was := make(map[fleet.MachineID]fleet.VMReport, len(old))
	for _, v := range old {
		was[v.Machine] = v
	}
	var ids []fleet.MachineID
	for _, v := range now {
		before, ok := was[v.Machine]
		delete(was, v.Machine)
		if !ok || !sameVM(before, v) {
			ids = append(ids, v.Machine)
		}
	}
	for id := range was {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// sameVM leaves out what only counts up.
func sameVM(a, b fleet.VMReport) bool {
	return a.Generation == b.Generation && a.Phase == b.Phase && a.HasVM == b.HasVM &&
		a.VM == b.VM &&
		a.Error == b.Error && a.Stall.Same(b.Stall) && a.OOM.Same(b.OOM) &&
		a.SilentSince.Equal(b.SilentSince) && a.Platform.Same(b.Platform) &&
		slices.EqualFunc(a.Services, b.Services, func(x, y fleet.ServiceReport) bool {
			return x == y
		})
}

// health judges a worker now.
func (o *observer) health(id fleet.WorkerID, now time.Time) plan.Health {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.healthLocked(id, now)
}

// speaks reports whether a worker is to be taken for one that lives and has a certificate that
// counts. One that a server hasn't heard since its start, although all report each second, may
// have none: so it is after the authority's key was lost.
func (o *observer) speaks(id fleet.WorkerID, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.workers[id]; w != nil && !w.contact.Last.IsZero() {
		return o.healthLocked(id, now) != plan.Down
	}
	return now.Sub(o.grace) < o.policy.WorkerSuspect
}

func (o *observer) healthLocked(id fleet.WorkerID, now time.Time) plan.Health {
	var c plan.Contact
	if w := o.workers[id]; w != nil {
		if w.shutOut {
			return plan.Down
		}
		c = w.contact
	}
	return plan.Liveness(c, o.grace, now, o.policy)
}

func (o *observer) isShutOut(id fleet.WorkerID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.workers[id]
	return w != nil && w.shutOut
}

// judge judges a worker, which may be shut out, and remembers what the judgement of the future
// depends on: a worker once found down has to prove itself. It reports whether the judgement has
// changed.
func (o *observer) judge(id fleet.WorkerID, shutOut bool, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.getLocked(id)
	w.shutOut = shutOut
	h := o.healthLocked(id, now)
	switch h {
	case plan.Down:
		w.contact.Lost = true
	case plan.Alive:
		w.contact.Lost = false
	}
	changed := w.judged != h
	w.judged = h
	return changed
}

// sight returns what the worker's newest report says of a machine. The set is the worker's present
// one.
func (o *observer) sight(id fleet.WorkerID, machine fleet.MachineID, now time.Time) plan.Sight {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := plan.Sight{Worker: id, Health: o.healthLocked(id, now)}
	w := o.workers[id]
	s.Unheard = w == nil || w.contact.Last.IsZero()
	if w == nil || w.report == nil {
		return s
	}
	s.Reported, s.Since, s.Pressure = true, w.feed.since, w.report.Pressure
	s.Current = w.report.Seen == w.feed.set.Revision && w.feed.set.Revision != 0
	s.VM, s.VMSince = w.vmOf(machine), w.vms[machine].at
	return s
}

// vmOf returns what the newest report says of a machine; nil if nothing.
func (w *observed) vmOf(machine fleet.MachineID) *fleet.VMReport {
	if v, ok := w.vms[machine]; ok {
		return &w.report.VMs[v.i]
	}
	i := slices.IndexFunc(w.report.VMs,
		func(v fleet.VMReport) bool { return v.Machine == machine })
	if i < 0 {
		return nil
	}
	return &w.report.VMs[i]
}

// told returns what a machine's history has been told of the services of the VM that is reported.
func (o *observer) told(id fleet.WorkerID, vm *fleet.VMReport) []fleet.ServiceReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.workers[id]
	if w == nil || w.vms[vm.Machine].vm != vm.VM {
		return nil
	}
	return w.vms[vm.Machine].told
}

// toldServices notes what a machine's history has been told of its services.
func (o *observer) toldServices(id fleet.WorkerID, vm *fleet.VMReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.workers[id]
	if w == nil {
		return
	}
	if s, ok := w.vms[vm.Machine]; ok && s.vm == vm.VM {
		s.told = vm.Services
		w.vms[vm.Machine] = s
	}
}

// report returns a worker's newest report (nil: none), its contact, and whether it acted on the
// newest assignments.
func (o *observer) report(id fleet.WorkerID) (r *fleet.WorkerReport, contact plan.Contact,
	current bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.workers[id]
	if w == nil {
		return nil, plan.Contact{}, false
	}
	return w.report, w.contact, w.report != nil && w.feed.set.Revision != 0 &&
		w.report.Seen == w.feed.set.Revision
}
