package fleet

import (
	"net/netip"
	"time"
)

// WorkerState is derived from a worker's record and its liveness; it is not stored.
type WorkerState string

// Worker states.
const (
	WorkerReady    WorkerState = "ready"
	WorkerCordoned WorkerState = "cordoned"
	WorkerDraining WorkerState = "draining"
	WorkerDrained  WorkerState = "drained" // cordoned, and nothing depends on it: safe to power off
	WorkerDown     WorkerState = "down"
)

// Worker is the record of a host that runs machines.
type Worker struct {
	ID     WorkerID `json:"id"`
	Number uint32   `json:"number"` // in private addresses
	// underlay address, routes of other workers point to it
	Address  netip.Addr        `json:"address"`
	APIURL   string            `json:"api_url"` // where the server reaches it
	Capacity Resources         `json:"capacity"`
	Runtime  string            `json:"runtime"` // sandbox or qemu
	Version  string            `json:"version"`
	Release  ReleaseID         `json:"release"`
	Labels   map[string]string `json:"labels,omitempty"`
	Tunnel   TunnelEnd         `json:"tunnel,omitzero"`
	JoinedAt time.Time         `json:"joined_at"`
	// Cordoned: takes no new machines. Reason and By are for people.
	Cordoned     bool   `json:"cordoned,omitempty"`
	CordonReason string `json:"cordon_reason,omitempty"`
	// Drain is the drain that owns the worker now; "" if none.
	Drain DrainID `json:"drain,omitempty"`
	// Drained is set by a drain that completed, cleared by uncordon.
	Drained bool `json:"drained,omitempty"`
}

// Allocation is who holds capacity on one worker: placed machines and reservations of moves, in one
// record, so that one compare-and-swap decides whether another fits.
type Allocation struct {
	Worker  WorkerID                `json:"worker"`
	Holders map[MachineID]Allocated `json:"holders"`
}

// Allocated is one holder's share. Move is set while it is a reservation.
type Allocated struct {
	Resources Resources `json:"resources"`
	Move      MoveID    `json:"move,omitempty"`
}

// Used returns the sum of all shares.
func (a Allocation) Used() Resources {
	var sum Resources
	for _, h := range a.Holders {
		sum = sum.Add(h.Resources)
	}
	return sum
}
