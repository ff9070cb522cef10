package fleet

import (
	"net/netip"
	"time"
)

// MachineState is what a machine is doing, as the control plane last learned.
type MachineState string

// Machine states.
const (
	MachineCreated  MachineState = "created"  // recorded; never started yet
	MachineStarting MachineState = "starting" // a worker is bringing it up
	MachineStarted  MachineState = "started"  // its services run
	MachineStopping MachineState = "stopping" // asked to stop
	MachineStopped  MachineState = "stopped"  // no VM; the disk is closed
	// a move has stopped it and not yet started it again
	MachineMoving MachineState = "moving"
	MachineFailed MachineState = "failed" // could not be brought up; Reason says why
	// its worker is down; failover pending or impossible
	MachineLost       MachineState = "lost"
	MachineDestroying MachineState = "destroying" // being removed
)

// Desired is what the user wants of a machine.
type Desired string

// Desired states.
const (
	DesiredStarted   Desired = "started"
	DesiredStopped   Desired = "stopped"
	DesiredDestroyed Desired = "destroyed"
)

// Resources of a machine or a worker.
type Resources struct {
	CPUMillis int64 `json:"cpu_millis"` // thousandths of a core
	MemoryMiB int64 `json:"memory_mib"`
}

// How many processes and threads a machine may have: 4 per MiB of its memory, and these at least
// and most. All machines of a host share its process ids.
const (
	processesPerMiB = 4
	LeastProcesses  = 4096
	MostProcesses   = 30000
)

// Processes returns how many processes and threads a machine with r may have.
func (r Resources) Processes() int64 {
	return min(max(r.MemoryMiB*processesPerMiB, LeastProcesses), MostProcesses)
}

// Fits reports whether need fits into r.
func (r Resources) Fits(need Resources) bool {
	return need.CPUMillis <= r.CPUMillis && need.MemoryMiB <= r.MemoryMiB
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.CPUMillis + o.CPUMillis, r.MemoryMiB + o.MemoryMiB}
}

// Sub returns r − o.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.CPUMillis - o.CPUMillis, r.MemoryMiB - o.MemoryMiB}
}

// Placement is where a machine is, or was last.
type Placement struct {
	Worker     WorkerID   `json:"worker"`
	Generation Generation `json:"generation"`
	Instance   InstanceID `json:"instance"`
	Address    netip.Addr `json:"address"` // private; changes with every move
	Since      time.Time  `json:"since"`
	// Named: a user asked for this worker. Until the machine has come up there once, it is started
	// on no other as long as this one lives and takes machines.
	Named bool `json:"named,omitempty"`
}

// Machine is the record of a machine.
type Machine struct {
	ID        MachineID     `json:"id"`
	Name      MachineName   `json:"name"`
	App       AppName       `json:"app"`
	Network   NetworkName   `json:"network"`
	NetworkID uint32        `json:"network_id"`
	Number    uint32        `json:"number"` // in private addresses; unique in its network
	Config    MachineConfig `json:"config"`
	Disk      Disk          `json:"disk_url"`
	// DiskKey is the number of its network's key under which its disk was last seen to be; 0: the
	// disk is not encrypted.
	DiskKey uint32       `json:"disk_key,omitempty"`
	Desired Desired      `json:"desired"`
	State   MachineState `json:"state"`
	// why it is in State, where that needs words
	Reason string `json:"reason,omitempty"`
	// nil: never placed, or stopped and released
	Placement *Placement `json:"placement,omitempty"`
	// Generation is the newest ever given out for this machine; Placement.Generation is never
	// newer.
	Generation Generation `json:"generation"`
	// Owner is the operation that alone may change the machine's placement now, as "move/<id>",
	// "start/<id>", …; "" means nobody.
	Owner     string    `json:"owner,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MachineEvent is one line of a machine's history.
type MachineEvent struct {
	Time  time.Time    `json:"time"`
	State MachineState `json:"state"`
	// create launch start stop exit migrate lost destroy; see internal/control for all
	Event    string     `json:"event"`
	Source   string     `json:"source"` // user, control, worker/<id>
	Instance InstanceID `json:"instance,omitempty"`
	// for example migrated=true, from, to, pause_ms
	Info map[string]string `json:"info,omitempty"`
}
