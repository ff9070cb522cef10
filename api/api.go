// Package api is the wire format of Sluice's own HTTP API: the types that clients send and get, and
// nothing else. It imports only the standard library, so that anybody can use it.
//
// Compatibility: fields are only ever added; clients ignore what they don't know.
package api

import "time"

// Error is the body of every answer that isn't 2xx: {"error": {...}}.
type Error struct {
	// machine-readable: invalid, not_found, exists, conflict, denied, unavailable, exhausted, …
	Code      string `json:"code"`
	Message   string `json:"message"` // what went wrong, naming the input
	Cause     string `json:"cause,omitempty"`
	Remedy    string `json:"remedy,omitempty"`     // what to do next
	RequestID string `json:"request_id,omitempty"` // names the request in the server's log
	// Err is the client's own error if it got no answer, for errors.Is. It isn't on the wire.
	Err error `json:"-"`
}

// Error returns the message, and the cause if there is one.
func (e *Error) Error() string {
	if e.Cause == "" {
		return e.Message
	}
	return e.Message + ": " + e.Cause
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ErrorBody wraps an Error on the wire.
type ErrorBody struct {
	Error Error `json:"error"`
}

// Service is a process that the platform keeps running inside a machine.
type Service struct {
	Name     string            `json:"name"`
	Cmd      []string          `json:"cmd"`
	Env      map[string]string `json:"env,omitempty"`
	Dir      string            `json:"dir,omitempty"`
	HTTPPort int               `json:"http_port,omitempty"`
	Needs    []string          `json:"needs,omitempty"`
	Check    *Check            `json:"check,omitempty"`
}

// Check tells whether a service is ready. Durations are in seconds.
type Check struct {
	Kind     string   `json:"kind"` // tcp, http, exec
	Port     int      `json:"port,omitempty"`
	Path     string   `json:"path,omitempty"`
	Cmd      []string `json:"cmd,omitempty"`
	Interval float64  `json:"interval,omitempty"`
	Timeout  float64  `json:"timeout,omitempty"`
	Grace    float64  `json:"grace,omitempty"`
}

// MachineConfig is what a user asks for.
type MachineConfig struct {
	Image       string            `json:"image"`
	CPUs        float64           `json:"cpus"`       // cores; default 1
	MemoryMiB   int64             `json:"memory_mib"` // default 256
	DiskGiB     int64             `json:"disk_gib,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Services    []Service         `json:"services,omitempty"`
	StopSignal  string            `json:"stop_signal,omitempty"`
	StopTimeout float64           `json:"stop_timeout,omitempty"` // seconds, at most 300
	// NoFile is the limit of open files (RLIMIT_NOFILE, soft and hard) of each process that the
	// platform starts in the machine: services, their checks, and commands of exec. 64 to 1048576;
	// 0: what the worker gives.
	NoFile int64 `json:"nofile,omitempty"`
	// User is whom these processes run as: a name or a number of the machine, optionally with
	// :group. "": root. A command of exec may name another.
	User string `json:"user,omitempty"`
	// NoNewPrivileges keeps these processes from ever getting rights that they began without: no
	// set-user-ID program, such as sudo, has an effect.
	NoNewPrivileges bool `json:"no_new_privileges,omitempty"`
	// Isolation is vm for a machine that runs on workers of runtime qemu alone, whose VMs have a
	// kernel of their own. "": on any worker.
	Isolation string `json:"isolation,omitempty"`
}

// CreateMachine creates a machine, and starts it unless SkipStart.
type CreateMachine struct {
	Name      string `json:"name"`
	App       string `json:"app"`
	Network   string `json:"network"`
	Worker    string `json:"worker,omitempty"` // place it there
	SkipStart bool   `json:"skip_start,omitempty"`
	// Encrypt says whether its disk is to be encrypted; absent: if the fleet has a key.
	Encrypt *bool         `json:"encrypt,omitempty"`
	Config  MachineConfig `json:"config"`
}

// Machine is a machine as the fleet knows it.
type Machine struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	App        string        `json:"app"`
	Network    string        `json:"network"`
	State      string        `json:"state"`
	Desired    string        `json:"desired"`
	Reason     string        `json:"reason,omitempty"`
	InstanceID string        `json:"instance_id,omitempty"`
	Worker     string        `json:"worker,omitempty"`
	PrivateIP  string        `json:"private_ip,omitempty"`
	Generation uint64        `json:"generation"`
	Release    string        `json:"release,omitempty"`
	Version    string        `json:"version,omitempty"`
	DiskURL    string        `json:"disk_url"`
	Encrypted  bool          `json:"encrypted"` // its disk is
	Healthy    bool          `json:"healthy"`
	Operation  string        `json:"operation,omitempty"` // what is being done with it now
	Config     MachineConfig `json:"config"`
	Services   []ServiceInfo `json:"services,omitempty"`
	Disk       DiskActivity  `json:"disk"`
	DiskStall  *DiskStall    `json:"disk_stall,omitempty"` // while the disk's store has stalled
	// OutOfMemory is set once the kernel has killed a process of the machine for lack of memory.
	OutOfMemory *OutOfMemory `json:"out_of_memory,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
	Events      []Event      `json:"events,omitempty"` // in a single machine's answer
}

// ServiceInfo is one service's state.
type ServiceInfo struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Restarts int    `json:"restarts,omitempty"`
	Error    string `json:"error,omitempty"`
	// StartedAt is when its process was started; zero: never, or not known.
	StartedAt time.Time `json:"started_at,omitzero"`
	// Exit is how it last ended by itself, at ExitedAt, or, where Unstartable, why it could not be
	// started then.
	Exit        string    `json:"exit,omitempty"`
	ExitedAt    time.Time `json:"exited_at,omitzero"`
	Unstartable bool      `json:"unstartable,omitempty"`
	// for how long it waited then until the next try
	RetryMS int64 `json:"retry_ms,omitempty"`
}

// DiskActivity counts the requests of a machine's disk to the store since it was attached.
type DiskActivity struct {
	Epoch        uint64 `json:"epoch,omitempty"`
	Requests     int64  `json:"requests"`
	BytesRead    int64  `json:"bytes_read"`
	BytesWritten int64  `json:"bytes_written"`
	Replayed     int64  `json:"replayed,omitempty"`
	// how the VM's kernel gets the disk: fuse or nbd
	FrontEnd string `json:"front_end,omitempty"`
	// why the file system is smaller than the disk; "" if it isn't
	Ungrown string `json:"ungrown,omitempty"`
	// what the disk has in the store, garbage included, as the worker counts it; 0: not known
	StoredBytes int64 `json:"stored_bytes,omitempty"`
	// what it may have there before it is paused; 0: there is no bound
	QuotaBytes int64 `json:"quota_bytes,omitempty"`
}

// OutOfMemory counts the processes of a machine that the kernel has killed for lack of memory since
// the machine was started on its present worker.
type OutOfMemory struct {
	Kills int64     `json:"kills"`
	Last  time.Time `json:"last"` // when the newest was noticed
}

// DiskStall describes a stall: the object store completes none of a machine's disk requests.
type DiskStall struct {
	Since     time.Time `json:"since"`
	Operation string    `json:"operation"`
	// Kind is unavailable, exhausted (the store is full) or denied (it refuses access).
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
	// HeldSince is since when something in the machine has waited for the store; absent: nothing
	// waits.
	HeldSince time.Time `json:"held_since,omitzero"`
	// the machine's processes are frozen until the store is back
	Paused bool `json:"paused,omitempty"`
}

// Event is one line of a machine's history.
type Event struct {
	Time       time.Time         `json:"time"`
	State      string            `json:"state"`
	Event      string            `json:"event"`
	Source     string            `json:"source"`
	InstanceID string            `json:"instance_id,omitempty"`
	Info       map[string]string `json:"info,omitempty"`
}

// Worker is a host.
type Worker struct {
	ID           string            `json:"id"`
	State        string            `json:"state"` // ready cordoned draining drained down
	Address      string            `json:"address"`
	Runtime      string            `json:"runtime"`
	Version      string            `json:"version"`
	Release      string            `json:"release"`
	CPUs         float64           `json:"cpus"`
	MemoryMiB    int64             `json:"memory_mib"`
	CPUsUsed     float64           `json:"cpus_used"`
	MemoryUsed   int64             `json:"memory_mib_used"`
	Machines     int               `json:"machines"`
	Reserved     int               `json:"reserved"` // reservations of moves
	PoolReady    int               `json:"pool_ready"`
	LastSeen     time.Time         `json:"last_seen,omitzero"`
	CordonReason string            `json:"cordon_reason,omitempty"`
	Drain        string            `json:"drain,omitempty"`
	SafeToStop   bool              `json:"safe_to_stop"` // nothing depends on it
	Labels       map[string]string `json:"labels,omitempty"`
	Conditions   []Condition       `json:"conditions,omitempty"`
	JoinedAt     time.Time         `json:"joined_at"`
	RevokedAt    time.Time         `json:"revoked_at,omitzero"` // since when it is shut out
	// Acceleration is what executes the instructions of VMs with a kernel of their own (runtime
	// qemu): kvm, or tcg, which translates them, with the reason. Empty for other runtimes, and
	// until the worker has found out.
	Acceleration       string `json:"acceleration,omitempty"`
	AccelerationReason string `json:"acceleration_reason,omitempty"`
	// StoreKey is which credentials of the store it uses; nil: it hasn't said.
	StoreKey *StoreKey `json:"store_key,omitempty"`
	// Pressure is how much of the time work on the host waits; nil until it is known.
	Pressure *Pressure `json:"pressure,omitempty"`
}

// Pressure is how much of the last ten seconds something on a host waited: 0 never, 1 always.
type Pressure struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
	IO     float64 `json:"io"`
	Load   float64 `json:"load"` // tasks that ran or waited to, over the last minute
	Cores  int     `json:"cores"`
	// High: everything on the host takes at least twice as long. The worker starts fewer VMs at
	// once and waits longer. A start that is given up goes to a worker without high pressure, if
	// there is one.
	High bool `json:"high"`
}

// Condition is something that is wrong with a worker, as reported by itself.
type Condition struct {
	Name    string    `json:"name"`
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
	// what to do about it; workers of earlier releases say none
	Remedy string `json:"remedy,omitempty"`
}

// Cordon carries the reason for people.
type Cordon struct {
	Reason string `json:"reason,omitempty"`
}

// CreateDrain starts draining a set of workers.
type CreateDrain struct {
	Workers []string `json:"workers"`
}

// Migrate moves one machine; to a chosen worker, or to the best.
type Migrate struct {
	To string `json:"to,omitempty"`
}

// Drain is the operation of emptying workers.
type Drain struct {
	ID         string    `json:"id"`
	Workers    []string  `json:"workers"`
	State      string    `json:"state"` // running blocked cancelling cancelled drained
	Total      int       `json:"total"`
	Moved      int       `json:"moved"`
	Blockers   []Blocker `json:"blockers,omitempty"`
	Moves      []Move    `json:"moves"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	By         string    `json:"by,omitempty"`
}

// Blocker is the reason why an operation doesn't go on.
type Blocker struct {
	Code   string    `json:"code"`
	Object string    `json:"object"`
	Detail string    `json:"detail"`
	Since  time.Time `json:"since"`
	Remedy string    `json:"remedy"`
}

// Move is the operation of moving one machine.
type Move struct {
	ID              string    `json:"id"`
	Machine         string    `json:"machine"`
	MachineName     string    `json:"machine_name"`
	Network         string    `json:"network"`
	Drain           string    `json:"drain,omitempty"`
	Reason          string    `json:"reason"`
	From            string    `json:"from"`
	To              string    `json:"to,omitempty"`
	Step            string    `json:"step"`
	Steps           []Step    `json:"steps"`
	Proof           string    `json:"proof,omitempty"`
	Blocker         *Blocker  `json:"blocker,omitempty"`
	Error           string    `json:"error,omitempty"`
	PauseMS         float64   `json:"pause_ms,omitempty"`
	DiskBytesCopied int64     `json:"disk_bytes_copied"`
	StartedAt       time.Time `json:"started_at"`
	FinishedAt      time.Time `json:"finished_at,omitzero"`
}

// Step is one reached step of a move.
type Step struct {
	Step string    `json:"step"`
	At   time.Time `json:"at"`
	Note string    `json:"note,omitempty"`
}

// Image is a base file tree that machines start from.
type Image struct {
	Name       string    `json:"name"`
	DiskURL    string    `json:"disk_url"`
	Checkpoint string    `json:"checkpoint"`
	SizeBytes  int64     `json:"size_bytes"`
	CreatedAt  time.Time `json:"created_at"`
	// Config is that of the OCI or Docker image from which it was made. Machines ignore it.
	Config *ImageConfig `json:"config,omitempty"`
	// Notes say for people how it differs from what it was made from.
	Notes []string `json:"notes,omitempty"`
}

// ImageConfig is how an OCI or Docker image wants to be run.
type ImageConfig struct {
	Env        []string `json:"env,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stop_signal,omitempty"`
}

// Server describes the server and its fleet.
type Server struct {
	FleetID  string `json:"fleet_id"`
	Version  string `json:"version"`
	StoreURL string `json:"store_url"` // without credentials
	Leader   bool   `json:"leader"`    // always true: a fleet has one server
	// why automatic actions are stopped; "" if they aren't
	Brake   string    `json:"brake,omitempty"`
	Started time.Time `json:"started"`
}

// DiskInfo describes a disk in the store.
type DiskInfo struct {
	URL       string `json:"url"`
	ID        string `json:"id"`
	SizeBytes int64  `json:"size_bytes"`
	State     string `json:"state"`
	Mode      string `json:"mode"`
	// in mode bounded: the oldest acknowledged write that the store may lack
	BoundMS int64 `json:"bound_ms,omitempty"`
	// URL of the store of its log, if that is a second one
	LogStore    string           `json:"log_store,omitempty"`
	Epoch       uint64           `json:"epoch"`
	Generation  uint64           `json:"generation"`
	Holder      string           `json:"holder,omitempty"`
	Parent      string           `json:"parent,omitempty"`
	Checkpoints []DiskCheckpoint `json:"checkpoints,omitempty"`
	UpdatedAt   time.Time        `json:"updated_at"`
	// Only for a machine's disk: its block device in the VM, how the VM's kernel gets it (fuse or
	// nbd), its requests to the store, and its stall. During a stall checkpoints aren't listed.
	Device   string        `json:"device,omitempty"`
	FrontEnd string        `json:"front_end,omitempty"`
	Activity *DiskActivity `json:"activity,omitempty"`
	Stall    *DiskStall    `json:"stall,omitempty"`
	// Of an encrypted disk: its cipher, the id of its data key, and which key-encryption key has
	// wrapped that.
	Cipher string `json:"cipher,omitempty"`
	KeyID  uint32 `json:"key_id,omitempty"`
	KEK    string `json:"kek,omitempty"`
	// Only if the store was listed: content in the newest map, the disk's own objects, and its
	// forks.
	MappedBytes int64    `json:"mapped_bytes,omitempty"`
	StoredBytes int64    `json:"stored_bytes,omitempty"`
	Objects     int      `json:"objects,omitempty"`
	Forks       []string `json:"forks,omitempty"`
}

// DiskStats counts what a machine's disk did since it was attached. Bytes to and from the store are
// of object bodies.
type DiskStats struct {
	Reads      uint64 `json:"reads"` // requests of the machine, as are writes and flushes
	Writes     uint64 `json:"writes"`
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	Flushes    uint64 `json:"flushes"`
	Gets       uint64 `json:"gets"` // requests to the store
	Puts       uint64 `json:"puts"`
	HeadSwaps  uint64 `json:"head_swaps"`
	Retries    uint64 `json:"retries"`   // requests that the store failed
	Throttled  uint64 `json:"throttled"` // of them, those that it answered by asking for fewer
	// objects that the store had acknowledged and lost; they were written again
	LostObjects uint64 `json:"lost_objects"`
	FrameHits   uint64 `json:"frame_hits"` // in memory or in the cache
	FrameMisses uint64 `json:"frame_misses"`
	DirtyBytes  int64  `json:"dirty_bytes"` // of writes, in memory
	// FlushTimes counts flushes by the time they took: bucket 0 those below a microsecond, bucket i
	// those from 2^(i-1) up to 2^i microseconds.
	FlushTimes  []uint64 `json:"flush_times"`
	FlushTimeNS int64    `json:"flush_time_ns"` // the sum of the times
	// FlushWaits says what flushes waited for in that time: queue, map, encode, pace, gateway,
	// store or journal. One that found nothing to write isn't counted.
	FlushWaits map[string]DiskWait `json:"flush_waits"`
	Stall      *DiskStall          `json:"stall,omitempty"`
}

// DiskWait counts what flushes waited for one thing, in buckets like those of flush_times.
type DiskWait struct {
	SumNS int64    `json:"sum_ns"`
	Times []uint64 `json:"times"`
}

// DiskCheckpoint is a named point of a disk.
type DiskCheckpoint struct {
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at,omitzero"` // not told by the call that makes it
}

// List wraps every list answer. Next is an opaque token for the next page, "" on the last.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}
