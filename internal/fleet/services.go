package fleet

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"time"
)

// The interfaces by which siblings meet. Implementations are wired in cmd.

// CreateMachine is a request to create a machine; see Control.
type CreateMachine struct {
	Name      MachineName
	App       AppName
	Network   NetworkName
	Worker    WorkerID // "" means the planner chooses
	SkipStart bool
	// Encrypt says whether its disk is to be encrypted; nil: if the fleet has a key.
	Encrypt *bool
	Config  MachineConfig
}

// MachineView is a machine's record with what its worker last reported of it (nil: nothing fresh),
// and the move that is going on with it (nil: none).
type MachineView struct {
	Machine Machine
	Report  *VMReport
	Move    *Move
}

// WorkerView is a worker's record with its derived state.
type WorkerView struct {
	Worker     Worker
	State      WorkerState
	Liveness   string    // alive, suspect or down, whatever State says
	LastSeen   time.Time // zero: never since this server started
	Allocation Allocation
	Report     *WorkerReport // nil: none since this server started
	Machines   int           // placed on it
	SafeToStop bool          // no VM reported, no placement, no reservation
	RevokedAt  time.Time     // since when its certificates are refused; zero: they are taken
}

// DrainView is a drain with its moves, oldest first.
type DrainView struct {
	Drain Drain
	Moves []MoveView
}

// MoveView is a move with the name of its machine and its app; "" for a machine that is gone.
type MoveView struct {
	Move        Move
	MachineName MachineName
	App         AppName
}

// ServerView describes the server and its fleet.
type ServerView struct {
	FleetID  string
	StoreURL string
	Brake    string
	Started  time.Time
}

// What people ask of the control plane follows, by what it is about. Everything is safe for
// concurrent use, and durable when it returns. References to machines are exact: a MachineID, or
// "app/name", or a name, each if unique in the fleet (else Conflict, which lists the candidates).
// What doesn't exist is NotFound, and a server that has not read its state yet is Unavailable.

// Machines makes machines, and says what they do.
type Machines interface {
	// CreateMachine returns once the machine has its disk and its place; a worker brings it up
	// meanwhile. Exists if the network's app has one of that name, Exhausted if no worker has room.
	CreateMachine(ctx context.Context, req CreateMachine) (MachineView, error)
	Machine(ctx context.Context, ref string) (MachineView, error)
	// Machines returns those that a filter leaves, ordered by app and name. It costs what the
	// networks or the worker of the filter have; without them, what the fleet has.
	Machines(ctx context.Context, f MachineFilter) ([]MachineView, error)
	// MachineEvents returns the newest events of a machine, oldest first.
	MachineEvents(ctx context.Context, ref string) ([]MachineEvent, error)
	// StartMachine changes nothing of a machine that runs; one that has failed is started at once.
	StartMachine(ctx context.Context, ref string) (MachineView, error)
	StopMachine(ctx context.Context, ref string) (MachineView, error)
	// DestroyMachine returns once the request is recorded. VM and disk go after that.
	DestroyMachine(ctx context.Context, ref string) error
}

// Moves moves machines between workers.
type Moves interface {
	// Migrate starts a move; to "" means the planner chooses. Conflict if the machine doesn't run,
	// is on that worker already, or is owned by another operation.
	Migrate(ctx context.Context, ref string, to WorkerID) (MoveView, error)
	Move(ctx context.Context, id MoveID) (MoveView, error)
}

// Workers says what workers do, and whether they take machines.
type Workers interface {
	// Workers returns all, ordered by id.
	Workers(ctx context.Context) ([]WorkerView, error)
	Worker(ctx context.Context, id WorkerID) (WorkerView, error)
	Cordon(ctx context.Context, id WorkerID, reason string) (WorkerView, error)
	// Uncordon is a Conflict while a drain has the worker.
	Uncordon(ctx context.Context, id WorkerID) (WorkerView, error)
}

// Drains empties workers.
type Drains interface {
	// StartDrain cordons all workers in one transaction. Draining a worker that a running drain has
	// already is a Conflict that names the drain.
	StartDrain(ctx context.Context, workers []WorkerID, by string) (DrainView, error)
	Drain(ctx context.Context, id DrainID) (DrainView, error)
	// Drains returns all, oldest first.
	Drains(ctx context.Context) ([]DrainView, error)
	// CancelDrain returns at once. Moves that are past their point of no return end on their
	// target, the others on their source.
	CancelDrain(ctx context.Context, id DrainID) (DrainView, error)
}

// Images builds images.
type Images interface {
	// CreateImage builds an image from a tar stream. Exists if there is one of that name.
	CreateImage(ctx context.Context, name ImageName, sizeBytes int64, tar io.Reader) (Image, error)
	// Images returns all, ordered by name.
	Images(ctx context.Context) ([]Image, error)
}

// NetworkView says how a network's disks are encrypted.
type NetworkView struct {
	Name      NetworkName
	Key       uint32 // number of the newest key; 0: none of its disks is encrypted
	Encrypted int    // machines with an encrypted disk
	// Waiting are the machines whose disks are not under the newest key yet, and why.
	Waiting []Blocker
}

// DiskKey is what opens the disk of one machine.
type DiskKey struct {
	Machine Machine
	Key     []byte
}

// Keys changes the keys of machines' disks.
type Keys interface {
	// Networks returns all, ordered by name.
	Networks(ctx context.Context) ([]NetworkView, error)
	// RekeyNetwork makes a new key for a network, to which its disks are changed one after the
	// other. While that goes on it makes no other. NotFound if no disk of it is encrypted.
	RekeyNetwork(ctx context.Context, name NetworkName) (NetworkView, error)
	// DiskKey hands out the key of one machine's disk, and notes that in the machine's history.
	DiskKey(ctx context.Context, ref string) (DiskKey, error)
}

// Secrets keeps apps' secrets, and shows none. Apps of one name in two networks have nothing to do
// with each other.
type Secrets interface {
	SetSecret(ctx context.Context, of SecretScope, name string, value []byte) (Secret, error)
	// Secrets returns an app's, ordered by name, without values.
	Secrets(ctx context.Context, of SecretScope) ([]Secret, error)
	// UnsetSecret is NotFound if there is none.
	UnsetSecret(ctx context.Context, of SecretScope, name string) error
}

// Status says what the server is.
type Status interface {
	Server(ctx context.Context) ServerView
}

// Changes tells of changes.
type Changes interface {
	// Changed returns a channel that is closed at the next change of anything above. It is
	// level-triggered: take it before reading.
	Changed() <-chan struct{}
}

// WorkerFeed is what workers ask of the control plane.
type WorkerFeed interface {
	Join(ctx context.Context, req JoinRequest) (JoinAnswer, error)
	// Assignments returns the set once its revision is newer than after, or the present one when
	// ctx ends. Revisions restart when the server does, so a set is newer when its revision differs
	// from after.
	Assignments(ctx context.Context, worker WorkerID, after int64) (AssignmentSet, error)
	Report(ctx context.Context, report WorkerReport) error
}

// MachineFilter narrows a list of machines; what is empty matches all.
type MachineFilter struct {
	Networks []NetworkName // any of these; each once
	App      AppName
	Worker   WorkerID // of its placement
}

// Covers reports whether a machine is one of those that the filter leaves.
func (f MachineFilter) Covers(m Machine) bool {
	return (len(f.Networks) == 0 || slices.Contains(f.Networks, m.Network)) &&
		(f.App == "" || f.App == m.App) &&
		(f.Worker == "" || m.Placement != nil && m.Placement.Worker == f.Worker)
}

// Locator finds where calls for a machine go.
type Locator interface {
	// Find resolves a reference among the machines that sees holds for. To the answer the others
	// don't exist: neither their names nor their ids are in it, and none makes a name ambiguous.
	Find(ctx context.Context, ref string, sees func(Machine) bool) (Machine, error)
	// WorkerOf returns where the API of the worker is on which the machine runs now.
	// Unavailable while it is moving or stopped, with a message that says so.
	WorkerOf(ctx context.Context, ref string) (MachineID, WorkerAPI, error)
}

// HostNet is what a worker asks of its host's network. Idempotent; Sync removes what isn't named.
type HostNet interface {
	// AddMachine routes a machine's address to a VM's link and lets it talk to its own network
	// only.
	AddMachine(ctx context.Context, m MachineLink) error
	RemoveMachine(ctx context.Context, id MachineID) error
	// SyncPeers makes the routes to other workers' machines match, and the tunnel to these workers.
	SyncPeers(ctx context.Context, networks []uint32, peers []Peer) error
	// Intact reports whether what SyncPeers made is still there.
	Intact() bool
	// Wire says how machines' packets get to other workers.
	Wire() Wire
	// RenewTunnel makes a key for the tunnel, if the one in use is older than life, and reports
	// whether there is one to be offered. It is used once TunnelOffered is called.
	RenewTunnel(ctx context.Context, life time.Duration) (bool, error)
	// TunnelOffered is told that other workers are being told of this end of the tunnel.
	TunnelOffered(ctx context.Context, end TunnelEnd) error
	// Restore makes the machines known to the host match; called once after a restart.
	Restore(ctx context.Context, links []MachineLink) error
}

// Wire is what machines of one network on different workers reach each other by.
type Wire struct {
	Tunnel TunnelEnd
	MTU    int // of a machine's packets, bytes; 0: as its link has it
}

// MachineLink is a machine's place in a worker's network.
type MachineLink struct {
	Machine   MachineID
	NetworkID uint32
	Address   netip.Addr
	Interface string // the worker's end of the VM's link
}
