package control

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// row is a record with the revision of its last change, which transactions compare. The record is shared:
// whoever changes it clones the maps and slices in it first.
type row[T any] struct {
	val T
	rev int64
}

// cache is this server's copy of the records. Its own commits are in it when they return, other servers'
// follow by a watch. It may be behind, and never ahead; each key only goes forward.
type cache struct {
	mu          sync.RWMutex
	machines    map[string]row[fleet.Machine]
	names       map[string]row[fleet.MachineID]
	networks    map[string]row[fleet.Network]
	workers     map[string]row[fleet.Worker]
	allocations map[string]row[fleet.Allocation]
	moves       map[string]row[fleet.Move]
	drains      map[string]row[fleet.Drain]
	images      map[string]row[fleet.Image]
	locks       map[string]row[fleet.MoveID]
	tombstones  map[string]row[tombstone]
	counters    row[counters]
	// gone has the revision at which keys were deleted, so that an older change that arrives late doesn't
	// bring them back; forgotten once the watch is past it.
	gone map[string]int64

	placed  map[fleet.WorkerID]map[fleet.MachineID]bool // machines by the worker of their placement
	active  map[fleet.MachineID]map[fleet.MoveID]bool   // moves that are not final, by machine
	ofDr    map[fleet.DrainID]map[fleet.MoveID]bool     // all moves of a drain
	version int64                                       // counts changes
	// restless machines are those whose record alone says that something is to happen or to be awaited.
	restless map[fleet.MachineID]bool
}

func newCache() *cache {
	return &cache{
		machines: map[string]row[fleet.Machine]{}, names: map[string]row[fleet.MachineID]{},
		networks: map[string]row[fleet.Network]{}, workers: map[string]row[fleet.Worker]{},
		allocations: map[string]row[fleet.Allocation]{}, moves: map[string]row[fleet.Move]{},
		drains: map[string]row[fleet.Drain]{}, images: map[string]row[fleet.Image]{},
		locks: map[string]row[fleet.MoveID]{}, tombstones: map[string]row[tombstone]{}, gone: map[string]int64{},
		placed: map[fleet.WorkerID]map[fleet.MachineID]bool{}, active: map[fleet.MachineID]map[fleet.MoveID]bool{},
		ofDr: map[fleet.DrainID]map[fleet.MoveID]bool{}, restless: map[fleet.MachineID]bool{},
	}
}

// apply takes the changes of one transaction in together, each unless the cache has a newer one of that key.
// It returns the keys that changed.
func (c *cache) apply(events ...state.Event) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changed []string
	for _, ev := range events {
		took, err := c.applyLocked(ev)
		if err != nil {
			return changed, err
		}
		if took {
			changed = append(changed, ev.Key)
		}
	}
	return changed, nil
}

func (c *cache) applyLocked(ev state.Event) (bool, error) {
	if gone, ok := c.gone[ev.Key]; ok {
		if ev.ModRevision <= gone {
			return false, nil
		}
		delete(c.gone, ev.Key)
	}
	var took bool
	var err error
	switch dir := dirOf(ev.Key); dir {
	case dirMachines:
		took, err = c.applyMachineLocked(ev)
	case dirMoves:
		took, err = c.applyMoveLocked(ev)
	case dirNames:
		took, err = put(c.names, ev)
	case dirNetworks:
		took, err = put(c.networks, ev)
	case dirWorkers:
		took, err = put(c.workers, ev)
	case dirAllocations:
		took, err = put(c.allocations, ev)
	case dirDrains:
		took, err = put(c.drains, ev)
	case dirImages:
		took, err = put(c.images, ev)
	case dirLocks:
		took, err = put(c.locks, ev)
	case dirTombstones:
		took, err = put(c.tombstones, ev)
	default:
		if ev.Key == keyCounters {
			one := map[string]row[counters]{ev.Key: c.counters}
			took, err = put(one, ev)
			c.counters = one[ev.Key]
		}
	}
	if took && ev.Deleted {
		c.gone[ev.Key] = ev.ModRevision
	}
	if took {
		c.version++
	}
	return took, err
}

// dirOf returns the key's directory of records: everything up to and with the second slash.
func dirOf(key string) string {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return ""
	}
	i := strings.IndexByte(rest, '/')
	return root + rest[:i+1]
}

func put[T any](rows map[string]row[T], ev state.Event) (bool, error) {
	old, had := rows[ev.Key]
	if old.rev >= ev.ModRevision {
		return false, nil
	}
	if ev.Deleted {
		delete(rows, ev.Key)
		return had, nil
	}
	next := row[T]{rev: ev.ModRevision}
	if err := decode(ev.KV, &next.val); err != nil {
		return false, err
	}
	rows[ev.Key] = next
	return true, nil
}

func (c *cache) applyMachineLocked(ev state.Event) (bool, error) {
	old := c.machines[ev.Key].val
	took, err := put(c.machines, ev)
	if !took {
		return false, err
	}
	if old.Placement != nil {
		drop(c.placed, old.Placement.Worker, old.ID)
	}
	delete(c.restless, old.ID)
	now, ok := c.machines[ev.Key]
	if !ok {
		return true, nil
	}
	if now.val.Placement != nil {
		index(c.placed, now.val.Placement.Worker, now.val.ID)
	}
	if !steady(now.val) {
		c.restless[now.val.ID] = true
	}
	return true, nil
}

func (c *cache) applyMoveLocked(ev state.Event) (bool, error) {
	old := c.moves[ev.Key].val
	took, err := put(c.moves, ev)
	if !took {
		return false, err
	}
	drop(c.active, old.Machine, old.ID)
	drop(c.ofDr, old.Drain, old.ID)
	now, ok := c.moves[ev.Key]
	if !ok {
		return true, nil
	}
	if !now.val.Step.Final() {
		index(c.active, now.val.Machine, now.val.ID)
	}
	if now.val.Drain != "" {
		index(c.ofDr, now.val.Drain, now.val.ID)
	}
	return true, nil
}

func index[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]bool{}
	}
	m[k][v] = true
}

func drop[K, V comparable](m map[K]map[V]bool, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// decode is strict: the next write of a record would drop what this build doesn't know of it.
func decode(kv state.KV, into any) error {
	d := json.NewDecoder(bytes.NewReader(kv.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errs.Wrap(errs.Corrupt, err, "decode record %s at revision %d", kv.Key, kv.ModRevision).
			WithRemedy("run the release that wrote it, or restore the state from a snapshot")
	}
	return nil
}

// steady says that, as far as the record goes, nothing is to happen to a machine as time goes by.
func steady(m fleet.Machine) bool {
	if m.Owner != "" {
		return false
	}
	if m.Placement == nil {
		return m.Desired == fleet.WantStopped && (m.State == fleet.MachineStopped || m.State == fleet.MachineCreated)
	}
	return m.Desired == fleet.WantStarted && m.State == fleet.MachineStarted
}
