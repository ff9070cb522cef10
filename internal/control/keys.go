package control

import (
	"fmt"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Keys of the records, all under one root so that a store can hold other things too.
const (
	root           = "fleet/"
	dirMachines    = root + "machines/"
	dirNames       = root + "names/" // app/name → machine id: what makes a name unique
	dirNetworks    = root + "networks/"
	dirWorkers     = root + "workers/"
	dirAllocations = root + "allocations/" // one per worker: one compare decides its capacity
	dirMoves       = root + "moves/"
	dirDrains      = root + "drains/"
	dirImages      = root + "images/"
	dirLocks       = root + "netlocks/"   // network/slot → move id
	dirEvents      = root + "events/"     // per machine, a ring of the newest maxEvents
	dirTombstones  = root + "tombstones/" // machines destroyed while their worker was lost
	keyCounters    = root + "meta/counters"
)

// counters number what gets into addresses. They only grow.
type counters struct {
	Network uint32 `json:"network"`
	Worker  uint32 `json:"worker"`
}

// tombstone says that a machine was destroyed while a lost worker may still have a VM of it.
type tombstone struct {
	Machine    fleet.MachineID  `json:"machine"`
	Worker     fleet.WorkerID   `json:"worker"`
	Generation fleet.Generation `json:"generation"`
}

func keyMachine(id fleet.MachineID) string   { return dirMachines + string(id) }
func keyNetwork(n fleet.NetworkName) string  { return dirNetworks + string(n) }
func keyWorker(id fleet.WorkerID) string     { return dirWorkers + string(id) }
func keyAllocation(id fleet.WorkerID) string { return dirAllocations + string(id) }
func keyMove(id fleet.MoveID) string         { return dirMoves + string(id) }
func keyDrain(id fleet.DrainID) string       { return dirDrains + string(id) }
func keyImage(n fleet.ImageName) string      { return dirImages + string(n) }
func keyEvents(id fleet.MachineID) string    { return dirEvents + string(id) }
func keyTombstone(id fleet.MachineID) string { return dirTombstones + string(id) }

func keyName(app fleet.AppName, name fleet.MachineName) string {
	return fmt.Sprintf("%s%s/%s", dirNames, app, name)
}

func keyLock(network fleet.NetworkName, slot int) string {
	return fmt.Sprintf("%s%s/%d", dirLocks, network, slot)
}
