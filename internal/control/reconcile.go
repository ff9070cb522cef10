package control

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Names in the queues: what to reconcile.
const (
	queueMachine = "machine/"
	queueDrain   = "drain/"
	queueDisk    = "disk/"
	queueRekey   = "rekey/" // networks
	queueFleet   = "fleet"  // failover, and whatever waits for capacity
)

func (c *Control) reconcile(ctx context.Context, name string) error {
	kind, id, _ := strings.Cut(name, "/")
	switch kind + "/" {
	case queueMachine:
		return c.reconcileMachine(ctx, fleet.MachineID(id))
	case queueDrain:
		return c.reconcileDrain(ctx, fleet.DrainID(id))
	case queueDisk:
		return c.reconcileDisk(ctx, fleet.MachineID(id))
	case queueRekey:
		return c.reconcileRekey(ctx, fleet.NetworkName(id))
	}
	return c.reconcileFleet(ctx)
}

// enqueueFor enqueues every reconciliation that a change of a record may affect.
func (c *Control) enqueueFor(ch records.Change) {
	switch ch.Kind {
	case records.Machines:
		c.fast.add(queueMachine + ch.ID)
		c.enqueueDrainOf(fleet.MachineID(ch.ID))
		if m, ok := c.records.Machines.Get(fleet.MachineID(ch.ID)); ok {
			c.enqueueRekey(m.Val.Network)
		}
	case records.Networks:
		c.enqueueRekey(fleet.NetworkName(ch.ID))
	case records.Moves:
		if mv, ok := c.records.Moves.Get(fleet.MoveID(ch.ID)); ok {
			c.fast.add(queueMachine + string(mv.Val.Machine))
			if mv.Val.Drain != "" {
				c.fast.add(queueDrain + string(mv.Val.Drain))
			}
		}
	case records.Drains:
		c.fast.add(queueDrain + ch.ID)
	case records.Locks, records.Allocations, records.Workers:
		c.enqueueWaiting()
	}
}

// enqueueDrainOf enqueues the drain of the worker on which a machine is placed.
func (c *Control) enqueueDrainOf(id fleet.MachineID) {
	m, ok := c.records.Machines.Get(id)
	if !ok || m.Val.Placement == nil {
		return
	}
	if w, ok := c.records.Workers.Get(m.Val.Placement.Worker); ok && w.Val.Drain != "" {
		c.fast.add(queueDrain + string(w.Val.Drain))
	}
}

// enqueueWaiting enqueues everything that may wait for a lock or for capacity.
func (c *Control) enqueueWaiting() {
	for _, d := range c.records.Drains.All() {
		if !d.Val.State.Final() {
			c.fast.add(queueDrain + string(d.Val.ID))
		}
	}
	for _, mv := range c.records.ActiveMoves("") {
		if mv.Val.Blocker != nil {
			c.fast.add(queueMachine + string(mv.Val.Machine))
		}
	}
	c.fast.add(queueFleet)
}

// starved is how late a tick must be for this server itself to count as held up.
const starved = time.Second

// tick judges the workers, and enqueues everything that time alone may change.
func (c *Control) tick() {
	now := c.now()
	if !c.ticked.IsZero() && now.Sub(c.due) > starved {
		c.obs.excuseSilence(now.Sub(c.ticked), now)
	}
	c.ticked = now
	defer func() { c.due = now.Add(max(c.rest(now), c.cfg.Tick)) }() // it rests on purpose, too
	c.obs.forgetStarts(now)
	c.retryFailed()
	for _, w := range c.records.Workers.All() {
		c.judge(w.Val.ID, now)
	}
	for _, id := range c.records.Unsettled() {
		c.fast.add(queueMachine + string(id))
	}
	for _, d := range c.records.Drains.All() {
		if !d.Val.State.Final() {
			c.fast.add(queueDrain + string(d.Val.ID))
		}
	}
	for _, n := range c.records.Networks.All() {
		c.enqueueRekey(n.Val.Name)
	}
	c.fast.add(queueFleet)
}

// judge judges a worker, and enqueues what is on it if the judgement has changed.
func (c *Control) judge(id fleet.WorkerID, now time.Time) {
	if !c.obs.judge(id, c.isRevoked(id), now) {
		return
	}
	for _, m := range c.records.PlacedOn(id) {
		c.fast.add(queueMachine + string(m.ID))
	}
	c.fast.add(queueFleet)
	c.broadcast()
}

func (c *Control) isRevoked(id fleet.WorkerID) bool {
	who, _ := c.records.Identities.Get(id)
	return who.Val.IsRevoked()
}

// maxTries bounds a request whose records somebody else changes all the time.
const maxTries = 20

// try repeats a decision that lost a race, at most maxTries times. Each round reads the records
// anew.
func (c *Control) try(ctx context.Context, decide func() error) error {
	for attempt := 0; ; attempt++ {
		err := decide()
		if err == nil || !records.IsLostRace(err) || attempt == maxTries {
			return err
		}
		if attempt > 3 {
			if err := backoff.Sleep(ctx, c.cfg.Tick); err != nil {
				return errs.Wrap(errs.Unavailable, err, "wait for the records to settle")
			}
		}
	}
}

// tryIn is try for what a person asks of a network. One after the other is decided: all of them
// change the same records, so that of many at once most would lose races until they give up.
func (c *Control) tryIn(ctx context.Context, network fleet.NetworkName,
	decide func() error) error {
	unlock, err := c.asked.lock(ctx, network)
	if err != nil {
		return err
	}
	defer unlock()
	return c.try(ctx, decide)
}

// keyLocks are mutexes by key; waiting for one ends with its context.
type keyLocks[K ~string] struct {
	what string // that a key names, for errors
	mu   sync.Mutex
	held map[K]chan struct{}
}

// lock returns the unlock, or an error if ctx ended first.
func (l *keyLocks[K]) lock(ctx context.Context, id K) (func(), error) {
	for {
		l.mu.Lock()
		wait, taken := l.held[id]
		if !taken {
			mine := make(chan struct{})
			l.held[id] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, id)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "wait for %s %s", l.what,
				id)
		case <-wait:
		}
	}
}

// retries remember how often a machine failed in a row. They are in memory: forgetting them only
// makes the next try early.
type retries struct {
	mu sync.Mutex
	of map[fleet.MachineID]retry
}

type retry struct {
	generation fleet.Generation
	count      int
	next       time.Time
}

// Pauses before a failed machine is started again: doubled each time, forgotten once it was well
// for retryMost.
const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

// after returns when a machine that failed at a generation is to be started again.
func (r *retries) after(id fleet.MachineID, gen fleet.Generation, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.of[id]
	if last.generation == gen {
		return last.next
	}
	if now.Sub(last.next) > retryMost {
		last.count = 0
	}
	wait := min(retryFirst<<min(last.count, 10), retryMost)
	next := retry{generation: gen, count: last.count + 1, next: now.Add(wait)}
	r.of[id] = next
	return next.next
}

// forget makes the next failure of a machine count as its first.
func (r *retries) forget(id fleet.MachineID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, id)
}
