package fleet

import "time"

// Proof is why it was safe to start a machine whose worker is lost.
type Proof string

// Proofs.
const (
	ProofReleased Proof = "released" // the source closed the disk
	ProofStorage  Proof = "storage"  // the storage refuses the old epoch
)

// StepRecord says when a step was reached.
type StepRecord struct {
	Step Step      `json:"step"`
	At   time.Time `json:"at"`
	Note string    `json:"note,omitempty"`
}

// MoveReason is what a move was started for.
type MoveReason string

// Reasons of moves.
const (
	ReasonDrain    MoveReason = "drain"
	ReasonMigrate  MoveReason = "migrate"
	ReasonFailover MoveReason = "failover"
)

// Codes of blockers.
const (
	CodeNoCapacity    = "no-capacity"    // no worker takes the machine
	CodeNetworkLocked = "network-locked" // another machine of the network is moving
	CodeTooManyMoves  = "too-many-moves" // as many are under way as the policy allows
	CodeBrake         = "brake"          // too many workers are down to act by itself
	CodeBusy          = "busy"           // another operation owns the machine
	CodeWorkerSuspect = "worker-suspect" // silent, and not yet down
	CodeWorkerDown    = "worker-down"
	CodeSourceBack    = "source-back"      // a failover's source is not lost any more
	CodeTargetLost    = "target-lost"      // the target takes no machines any more
	CodeTargetDown    = "target-down"      // the target went down before the machine was healthy
	CodeNotReady      = "target-not-ready" // the target has no VM for the machine
	CodeStopSlow      = "stop-slow"        // the source takes longer than it may
	CodeStartSlow     = "start-slow"       // a start takes long, and is waited for
	CodeStartFailed   = "start-failed"     // it lies in the machine rather than in its surroundings
	CodePlaced        = "placed"           // a machine is still placed on a worker to be drained
	CodeReserved      = "reserved"         // a reservation is held on it
	CodeVMLeft        = "vm-left"          // it reports a VM
	CodeMore          = "more"             // as many as there are beyond those that are named
	CodeNoReport      = "no-report"        // it has not yet reported that nothing is left
)

// Blocker is why something does not go on, as data.
type Blocker struct {
	Code   string    `json:"code"`   // one of the Code constants
	Object string    `json:"object"` // what blocks: machine/<id>, worker/<id>, network/<name>
	Detail string    `json:"detail"`
	Since  time.Time `json:"since"`
	Remedy string    `json:"remedy"` // the command that clears it
}

// Move is the durable record of moving one machine.
type Move struct {
	ID      MoveID      `json:"id"`
	Machine MachineID   `json:"machine"`
	Network NetworkName `json:"network"`
	Drain   DrainID     `json:"drain,omitempty"`
	Reason  MoveReason  `json:"reason"`
	From    WorkerID    `json:"from"`
	To      WorkerID    `json:"to,omitempty"`
	// To was asked for by name; no other target will do
	Pinned   bool         `json:"pinned,omitempty"`
	FromGen  Generation   `json:"from_generation"`
	ToGen    Generation   `json:"to_generation"`
	Instance InstanceID   `json:"instance"` // the new one
	Step     Step         `json:"step"`
	Steps    []StepRecord `json:"steps"`
	Cancel   bool         `json:"cancel,omitempty"`
	Proof    Proof        `json:"proof,omitempty"`
	Blocker  *Blocker     `json:"blocker,omitempty"`
	Error    string       `json:"error,omitempty"`
	Attempt  int          `json:"attempt"` // of the target's start
	// Refused are targets on which no VM got ready, while the machine went on running on its
	// source.
	Refused []WorkerID `json:"refused,omitempty"`
	// WasUnhealthy: its checks did not pass before the move; running is then enough for its end
	// too.
	WasUnhealthy bool `json:"was_unhealthy,omitempty"`
	// DiskBytesCopied is what went from worker to worker. The protocol has no such transfer; it
	// stays 0 for a disk in the store, and is the volume's size for a copied volume.
	DiskBytesCopied int64     `json:"disk_bytes_copied"`
	PauseMS         float64   `json:"pause_ms,omitempty"` // stopping told → healthy reported
	StartedAt       time.Time `json:"started_at"`
	FinishedAt      time.Time `json:"finished_at,omitzero"`
}

// DrainState is how far a drain is.
type DrainState string

// Drain states.
const (
	DrainRunning DrainState = "running"
	// nothing moves now, and Blockers says why; resumes by itself
	DrainBlocked    DrainState = "blocked"
	DrainCancelling DrainState = "cancelling"
	DrainCancelled  DrainState = "cancelled"
	DrainDone       DrainState = "drained"
)

// Final reports whether the drain has ended.
func (s DrainState) Final() bool { return s == DrainCancelled || s == DrainDone }

// Drain is the durable record of emptying a set of workers.
type Drain struct {
	ID         DrainID    `json:"id"`
	Workers    []WorkerID `json:"workers"`
	State      DrainState `json:"state"`
	Blockers   []Blocker  `json:"blockers,omitempty"`
	Total      int        `json:"total"` // machines found on the workers so far
	Moved      int        `json:"moved"`
	StartedAt  time.Time  `json:"started_at"`
	FinishedAt time.Time  `json:"finished_at,omitzero"`
	By         string     `json:"by"`
	// WasCordoned remembers, per worker, whether it was cordoned before; a cancel restores it.
	WasCordoned map[WorkerID]bool `json:"was_cordoned,omitempty"`
}

// Policy bounds what a drain does at once.
type Policy struct {
	MovesPerNetwork int `json:"moves_per_network"` // default 1
	MovesOut        int `json:"moves_out"`         // per source worker; default 8
	MovesIn         int `json:"moves_in"`          // per target worker; default 8
	MovesFleet      int `json:"moves_fleet"`       // default 32
	// BrakeFraction: with more than this share of workers down, nothing is started automatically;
	// default 0.2, and at least 2 workers must be down for it to act.
	BrakeFraction float64 `json:"brake_fraction"`
	// WorkerSuspect and WorkerDown: silence after which a worker gets no new work, and is failed
	// over.
	WorkerSuspect time.Duration `json:"worker_suspect_ns"`
	WorkerDown    time.Duration `json:"worker_down_ns"`
	// StartTimeout: a target that hasn't made a machine healthy by then is given up for another;
	// default 60 s.
	StartTimeout time.Duration `json:"start_timeout_ns"`
	// PrepareWait bounds how long a move waits for a VM that the target has ready to read the
	// machine's map too, before it stops the source; default 1 s. For the VM itself it waits up to
	// StartTimeout.
	PrepareWait time.Duration `json:"prepare_wait_ns"`
}

// DefaultPolicy returns the defaults.
func DefaultPolicy() Policy {
	return Policy{MovesPerNetwork: 1, MovesOut: 8, MovesIn: 8, MovesFleet: 32, BrakeFraction: 0.2,
		WorkerSuspect: 3 * time.Second, WorkerDown: 10 * time.Second, StartTimeout: time.Minute,
		PrepareWait: time.Second}
}

// Image is a base file tree, kept as the checkpoint of a template disk.
type Image struct {
	Name       ImageName `json:"name"`
	DiskURL    string    `json:"disk_url"`
	Checkpoint string    `json:"checkpoint"`
	SizeBytes  int64     `json:"size_bytes"`
	CreatedAt  time.Time `json:"created_at"`
	// Config is what the OCI or Docker image that it was made from says; nil for files alone.
	Config *ImageConfig `json:"config,omitempty"`
	// Notes say what it leaves out or has otherwise than what it was made from, for people.
	Notes []string `json:"notes,omitempty"`
}

// ImageConfig is how an OCI or Docker image wants to be run. It is kept, and machines don't follow
// it.
type ImageConfig struct {
	Env        []string `json:"env,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stop_signal,omitempty"`
}

// Network is a private network.
type Network struct {
	Name NetworkName `json:"name"`
	ID   uint32      `json:"id"`
	// NextNumber is the number that the next machine in it gets.
	NextNumber uint32 `json:"next_number"`
	// Keys are those of its machines' disks, newest first: more than one while the disks are
	// changed to the newest. None before its first machine with an encrypted disk.
	Keys []NetworkKey `json:"keys,omitempty"`
}
