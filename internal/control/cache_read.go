package control

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
)

// load replaces the cache by a listing at revision rev, and returns the keys that changed. What is newer than
// the listing stays.
func (c *cache) load(kvs []state.KV, rev int64) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := make(map[string]bool, len(kvs))
	var changed []string
	for _, kv := range kvs {
		listed[kv.Key] = true
		took, err := c.applyLocked(state.Event{KV: kv})
		if err != nil {
			return nil, err
		}
		if took {
			changed = append(changed, kv.Key)
		}
	}
	for _, key := range c.keysLocked() {
		if listed[key] {
			continue
		}
		took, err := c.applyLocked(state.Event{KV: state.KV{Key: key, ModRevision: rev}, Deleted: true})
		if err != nil {
			return nil, err
		}
		if took {
			changed = append(changed, key)
		}
	}
	c.forgetLocked(rev)
	return changed, nil
}

// missing takes in that a key doesn't exist now, at an unknown revision later than the cache's own.
func (c *cache) missing(key string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rev := c.revLocked(key)
	if rev == 0 {
		return false, nil
	}
	took, err := c.applyLocked(state.Event{KV: state.KV{Key: key, ModRevision: rev + 1}, Deleted: true})
	if took {
		c.gone[key] = rev // all that is surely older than the deletion
	}
	return took, err
}

// forget drops what is remembered of deletions at or before rev: the watch has passed them.
func (c *cache) forget(rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(rev)
}

func (c *cache) forgetLocked(rev int64) {
	maps.DeleteFunc(c.gone, func(_ string, gone int64) bool { return gone <= rev })
}

func (c *cache) keysLocked() []string {
	var keys []string
	collect := func(k string) { keys = append(keys, k) }
	each(c.machines, collect)
	each(c.names, collect)
	each(c.networks, collect)
	each(c.workers, collect)
	each(c.allocations, collect)
	each(c.moves, collect)
	each(c.drains, collect)
	each(c.images, collect)
	each(c.locks, collect)
	each(c.tombstones, collect)
	slices.Sort(keys)
	return keys
}

func each[T any](rows map[string]row[T], f func(string)) {
	for k := range rows {
		f(k)
	}
}

func (c *cache) revLocked(key string) int64 {
	switch dirOf(key) {
	case dirMachines:
		return c.machines[key].rev
	case dirNames:
		return c.names[key].rev
	case dirNetworks:
		return c.networks[key].rev
	case dirWorkers:
		return c.workers[key].rev
	case dirAllocations:
		return c.allocations[key].rev
	case dirMoves:
		return c.moves[key].rev
	case dirDrains:
		return c.drains[key].rev
	case dirImages:
		return c.images[key].rev
	case dirLocks:
		return c.locks[key].rev
	case dirTombstones:
		return c.tombstones[key].rev
	}
	return 0
}

// get returns the record under key; false if there is none.
func get[T any](c *cache, rows map[string]row[T], key string) (row[T], bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r, ok := rows[key]
	return r, ok
}

func (c *cache) machine(id fleet.MachineID) (row[fleet.Machine], bool) {
	return get(c, c.machines, keyMachine(id))
}

func (c *cache) worker(id fleet.WorkerID) (row[fleet.Worker], bool) {
	return get(c, c.workers, keyWorker(id))
}

func (c *cache) allocation(id fleet.WorkerID) row[fleet.Allocation] {
	r, _ := get(c, c.allocations, keyAllocation(id))
	return r
}

func (c *cache) move(id fleet.MoveID) (row[fleet.Move], bool) { return get(c, c.moves, keyMove(id)) }

func (c *cache) drain(id fleet.DrainID) (row[fleet.Drain], bool) {
	return get(c, c.drains, keyDrain(id))
}

func (c *cache) numbers() row[counters] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.counters
}

// all returns every record of a kind, ordered by key.
func all[T any](c *cache, rows map[string]row[T]) []row[T] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([]row[T], 0, len(rows))
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		list = append(list, rows[k])
	}
	return list
}

// placedOn returns the machines placed on any of the workers, ordered by id.
func (c *cache) placedOn(workers ...fleet.WorkerID) []fleet.Machine {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []fleet.Machine
	for _, w := range workers {
		for id := range c.placed[w] {
			list = append(list, c.machines[keyMachine(id)].val)
		}
	}
	slices.SortFunc(list, func(a, b fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// activeMoves returns the moves that are not final, ordered by id; of all machines where machine is "".
func (c *cache) activeMoves(machine fleet.MachineID) []row[fleet.Move] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []row[fleet.Move]
	add := func(ids map[fleet.MoveID]bool) {
		for id := range ids {
			list = append(list, c.moves[keyMove(id)])
		}
	}
	if machine != "" {
		add(c.active[machine])
	} else {
		for _, ids := range c.active {
			add(ids)
		}
	}
	slices.SortFunc(list, func(a, b row[fleet.Move]) int { return cmp.Compare(a.val.ID, b.val.ID) })
	return list
}

// drainMoves returns all moves of a drain, oldest first.
func (c *cache) drainMoves(id fleet.DrainID) []fleet.Move {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []fleet.Move
	for mv := range c.ofDr[id] {
		list = append(list, c.moves[keyMove(mv)].val)
	}
	slices.SortFunc(list, func(a, b fleet.Move) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// heldLocks counts the held slots of each network's lock.
func (c *cache) heldLocks() map[fleet.NetworkName]int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	held := map[fleet.NetworkName]int{}
	for key := range c.locks {
		network, _, _ := strings.Cut(strings.TrimPrefix(key, dirLocks), "/")
		held[fleet.NetworkName(network)]++
	}
	return held
}

// lockOf returns the key of the lock slot that a move holds; "" if it holds none.
func (c *cache) lockOf(mv fleet.Move) (string, row[fleet.MoveID]) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	prefix := dirLocks + string(mv.Network) + "/"
	for key, r := range c.locks {
		if r.val == mv.ID && strings.HasPrefix(key, prefix) {
			return key, r
		}
	}
	return "", row[fleet.MoveID]{}
}

// unsettled returns the machines at which somebody should look now and then, ordered by id.
func (c *cache) unsettled() []fleet.MachineID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := map[fleet.MachineID]bool{}
	maps.Copy(ids, c.restless)
	for id := range c.active {
		ids[id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}
