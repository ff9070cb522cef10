package records

import (
	"fmt"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// root is where all records are, so that a store can hold other things too.
const root = "fleet/"

// Name names a kind of record.
type Name string

// Names of kinds.
const (
	Machines    Name = "machines"
	FullNames   Name = "names" // network/app/name → machine id: what makes a name unique
	Networks    Name = "networks"
	Workers     Name = "workers"
	Allocations Name = "allocations" // one per worker: one compare decides its capacity
	Moves       Name = "moves"
	Drains      Name = "drains"
	Images      Name = "images"
	Locks       Name = "netlocks"   // network/slot → move id
	Tombstones  Name = "tombstones" // machines destroyed while their worker was lost
	Tokens      Name = "tokens"     // of people and programs
	Secrets     Name = "secrets"    // network/app/name → a secret, sealed
	Meta        Name = "meta"       // one record: the counters
	Identities  Name = "identities" // which certificates of a worker are taken
	JoinTokens  Name = "jointokens"
	Quotas      Name = "quotas" // scope → its limits
	Usages      Name = "usage"  // scope → what it uses

	// histories are not in memory: per machine a ring of its newest events.
	histories Name = "events"
)

func (n Name) dir() string { return root + string(n) + "/" }

// Counters number what gets into addresses. They only grow.
type Counters struct {
	Network uint32 `json:"network"`
	Worker  uint32 `json:"worker"`
}

// Usage is the record of what a scope uses; see fleet.QuotaScope for its id. None: nothing.
type Usage struct {
	Used fleet.Amounts `json:"used"`
}

// countersID is the id of the one record of counters.
const countersID = "counters"

// Tombstone says that a machine was destroyed while a lost worker may still have a VM of it.
type Tombstone struct {
	Machine    fleet.MachineID  `json:"machine"`
	Worker     fleet.WorkerID   `json:"worker"`
	Generation fleet.Generation `json:"generation"`
}

// FullName is the id of a machine's name among FullNames. The network is part of it, so that who
// may see one network learns nothing of the names in another.
func FullName(m fleet.Machine) string {
	return fmt.Sprintf("%s/%s/%s", m.Network, m.App, m.Name)
}

// FormerFullName is the id that older releases gave a machine's name: unique in the whole fleet.
func FormerFullName(m fleet.Machine) string { return fmt.Sprintf("%s/%s", m.App, m.Name) }

// SecretID is the id of a secret.
func SecretID(of fleet.SecretScope, name string) string {
	return fmt.Sprintf("%s/%s/%s", of.Network, of.App, name)
}

// Slot is the id of one slot of a network's lock.
func Slot(network fleet.NetworkName, slot int) string { return fmt.Sprintf("%s/%d", network, slot) }
