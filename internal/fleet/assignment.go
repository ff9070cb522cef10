package fleet

import (
	"cmp"
	"net/netip"
	"time"
)

// Want is what a worker shall make true of one machine.
type Want string

// Wants.
const (
	// WantPrepared: claim a VM and warm it for the machine (map, boot trace), read-only. The
	// machine may still run elsewhere. Safe to drop at any time.
	WantPrepared Want = "prepared"
	// WantRunning: attach the disk under the assignment's generation and run the machine.
	WantRunning Want = "running"
	// WantReleased: stop it cleanly, close the disk, give the VM back. Reported as PhaseReleased
	// until the assignment is withdrawn.
	WantReleased Want = "released"
	// WantDiscarded: get rid of the VM without touching the disk; it belongs to somebody else now.
	WantDiscarded Want = "discarded"
)

// Assignment is one machine's target on one worker. A worker keeps the newest generation it has
// seen of each machine, durably, and refuses anything older. A machine that is not mentioned is
// left alone.
type Assignment struct {
	Machine    MachineID     `json:"machine"`
	Generation Generation    `json:"generation"`
	Want       Want          `json:"want"`
	Instance   InstanceID    `json:"instance"`
	Name       MachineName   `json:"name"`
	App        AppName       `json:"app"`
	Network    NetworkName   `json:"network"`
	NetworkID  uint32        `json:"network_id"`
	Address    netip.Addr    `json:"address"`
	Disk       Disk          `json:"disk_url"`
	Config     MachineConfig `json:"config"`
	// Encrypted: the VM needs the disk's keys, which come beside, in the set's Private.
	Encrypted bool `json:"encrypted,omitempty"`
	// Trace is where in a move's trace the worker puts what it does for it, as a W3C traceparent;
	// "": nobody traces.
	Trace string `json:"trace,omitempty"`
}

// Peer is another worker, as a router sees it.
type Peer struct {
	Worker  WorkerID   `json:"worker"`
	Number  uint32     `json:"number"`
	Address netip.Addr `json:"address"`
	Tunnel  TunnelEnd  `json:"tunnel,omitzero"`
}

// TunnelEnd is one worker's end of the encrypted wire between machines; zero: it has none, and
// sends their packets in the clear.
type TunnelEnd struct {
	Key  string `json:"key"`  // WireGuard public key, base64
	Port uint16 `json:"port"` // UDP, at the worker's address
}

// AssignmentSet is all that one worker shall know: level-triggered, whole each time.
type AssignmentSet struct {
	Worker      WorkerID     `json:"worker"`
	Revision    int64        `json:"revision"` // of the fleet's state; only grows
	Assignments []Assignment `json:"assignments"`
	Networks    []uint32     `json:"networks"`
	Peers       []Peer       `json:"peers"`
	// Private is apart from the assignments, because a worker keeps those on its disk.
	Private map[MachineID]Private `json:"private,omitempty"`
	// Authority is the version of the fleet's authority. A worker that has a certificate of another
	// renews it at once. "": the server is of a release that doesn't say.
	Authority string `json:"authority,omitempty"`
}

// VMReport is one machine on one worker, as observed.
type VMReport struct {
	Machine    MachineID  `json:"machine"`
	Generation Generation `json:"generation"`
	Instance   InstanceID `json:"instance"`
	Phase      Phase      `json:"phase"`
	Since      time.Time  `json:"since"`
	VM         VMID       `json:"vm,omitempty"`
	Release    ReleaseID  `json:"release,omitempty"`
	Version    string     `json:"version,omitempty"` // of the platform in the VM
	// ErrorKind, Error and Remedy are set in PhaseFailed and PhaseFenced.
	ErrorKind string `json:"error_kind,omitempty"`
	Error     string `json:"error,omitempty"`
	Remedy    string `json:"remedy,omitempty"`
	// HasVM says that a VM exists, whatever the phase.
	HasVM bool `json:"has_vm,omitempty"`
	// Disk says what the disk did in this incarnation.
	Disk DiskReport `json:"disk"`
	// Stall is set while the disk's store has stalled.
	Stall *DiskStall `json:"stall,omitempty"`
	// OOM is set once a process of the machine was killed for lack of memory. Its contents are
	// never changed.
	OOM *OOMReport `json:"oom,omitempty"`
	// SilentSince is since when the platform in the VM answers nothing; zero: it answers.
	SilentSince time.Time `json:"silent_since,omitzero"`
	// Platform is set once the platform had to be started again in its VM. Its contents are never
	// changed.
	Platform *PlatformReport `json:"platform,omitempty"`
	// Timeline has the time each phase of this incarnation was first reached.
	Timeline map[Phase]time.Time `json:"timeline,omitempty"`
	Services []ServiceReport     `json:"services,omitempty"`
	// Progress grows whenever a start has come further, in whatever it consists of. Only that it
	// changes says something: a start that is slow is told from one that is stuck by it.
	Progress int64 `json:"progress,omitempty"`
}

// Healthy reports whether the machine has been brought up and each service that is wanted is ready
// now, as far as its platform says anything.
func (r *VMReport) Healthy() bool {
	if r.Phase != PhaseHealthy || !r.SilentSince.IsZero() {
		return false
	}
	for _, s := range r.Services {
		switch s.State {
		case "ready", "stopped", "stopping": // the latter two because somebody wants it
		default:
			return false
		}
	}
	return true
}

// DiskReport is what one incarnation's disk asked of the store, and what people should know of it.
type DiskReport struct {
	Epoch        uint64 `json:"epoch,omitempty"`
	Requests     int64  `json:"requests"`
	BytesRead    int64  `json:"bytes_read"`
	BytesWritten int64  `json:"bytes_written"`
	Replayed     int64  `json:"replayed,omitempty"` // log objects replayed at attach
	// how the VM's kernel gets the disk: fuse or nbd
	FrontEnd string `json:"front_end,omitempty"`
	// why its file system is smaller than the disk; "" if it isn't
	Ungrown string `json:"ungrown,omitempty"`
	// what the disk has in the store, garbage included, as the worker counts it; 0: not known
	StoredBytes int64 `json:"stored_bytes,omitempty"`
	// what it may have there before it is paused; 0: there is no bound
	QuotaBytes int64 `json:"quota_bytes,omitempty"`
}

// DiskStall tells of a store that doesn't do what a machine's disk waits for.
type DiskStall struct {
	Since     time.Time `json:"since"`
	Operation string    `json:"operation"` // such as "write disks/<id>/log/3/17"
	// Kind, Reason and Remedy are of the store's newest answer.
	// unavailable; exhausted: the store is full, or the disk is at its quota; denied: it refuses us
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
	// HeldSince is since when something in the machine waits for it; zero: nothing does.
	HeldSince time.Time `json:"held_since,omitzero"`
	// Paused: the machine's processes are frozen until the store is back, so that none sees an I/O
	// error.
	Paused bool `json:"paused,omitempty"`
}

// Same reports whether both are the same stall, with the same effect; nil is none.
func (s *DiskStall) Same(o *DiskStall) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Since.Equal(o.Since) && s.Paused == o.Paused && s.Kind == o.Kind
}

// ServiceReport is one service's state.
type ServiceReport struct {
	Name     string `json:"name"`
	State    string `json:"state"` // stopped starting running ready stopping failed
	PID      int    `json:"pid,omitempty"`
	Restarts int    `json:"restarts,omitempty"`
	Error    string `json:"error,omitempty"`
	// StartedAt is when its process was started, in UTC; zero: never, or it isn't known any more.
	StartedAt time.Time `json:"started_at,omitzero"`
	// Exit is how it last ended by itself, at ExitedAt, or, where Unstartable, why it could not be
	// started then.
	Exit        string    `json:"exit,omitempty"`
	ExitedAt    time.Time `json:"exited_at,omitzero"` // in UTC
	Unstartable bool      `json:"unstartable,omitempty"`
	// for how long it waited then until the next try
	RetryMS int64 `json:"retry_ms,omitempty"`
}

// Failing returns the first service that keeps ending or whose check fails, and how; "" if there is
// none. It has no number in it that changes by itself.
func (r *VMReport) Failing() string {
	for _, s := range r.Services {
		if s.State == "ready" || s.State == "stopped" || s.State == "stopping" {
			continue
		}
		if why := cmp.Or(s.Exit, s.Error); why != "" {
			return "service " + s.Name + ": " + why
		}
	}
	return ""
}

// OOMReport counts the processes of a machine that the kernel has killed for lack of memory in this
// incarnation.
type OOMReport struct {
	Kills int64     `json:"kills"`
	Last  time.Time `json:"last"` // when the newest was noticed
}

// Same reports whether two reports say the same.
func (r *OOMReport) Same(o *OOMReport) bool {
	return r == o || r != nil && o != nil && r.Kills == o.Kills
}

// PlatformReport tells of a platform that was started again in its VM, while its machine went on.
type PlatformReport struct {
	Count  int64     `json:"count"`
	Last   time.Time `json:"last"`
	Reason string    `json:"reason"` // how the one before the last start ended
}

// Same reports whether two reports say the same.
func (r *PlatformReport) Same(o *PlatformReport) bool {
	return r == o || r != nil && o != nil && r.Count == o.Count
}

// WorkerReport is everything a worker observes; sent whole at least once a second and at every
// change.
type WorkerReport struct {
	Worker     WorkerID    `json:"worker"`
	Boot       string      `json:"boot"`     // new each time the worker daemon starts
	Sequence   int64       `json:"sequence"` // grows within one Boot; older reports are dropped
	Seen       int64       `json:"seen"`     // newest AssignmentSet revision acted on
	VMs        []VMReport  `json:"vms"`
	PoolReady  int         `json:"pool_ready"`
	Conditions []Condition `json:"conditions,omitempty"`
	Release    ReleaseID   `json:"release"`
	Version    string      `json:"version"`
	// Authority is the version of the fleet's authority that the worker trusts, and has its
	// certificate of.
	Authority string `json:"authority,omitempty"`
	// Acceleration is what runs the instructions of the worker's VMs; nil where they have no kernel
	// of their own, and until it is known.
	Acceleration *Acceleration `json:"acceleration,omitempty"`
	// Pressure is how much of the time work on the host waits; nil until it is known.
	Pressure *Pressure `json:"pressure,omitempty"`
	// StoreKey is which credentials of the store it uses; nil where the store needs none, and of
	// workers of earlier releases.
	StoreKey *StoreKeyReport `json:"store_key,omitempty"`
}

// Acceleration is what runs the instructions of a VM that has a kernel of its own.
type Acceleration struct {
	Kind   string `json:"kind"`             // kvm, or tcg: translated by QEMU
	Reason string `json:"reason,omitempty"` // for people: why not kvm
}

// JoinRequest is how a worker introduces itself; repeated after each restart, with the same answer.
type JoinRequest struct {
	Worker   WorkerID          `json:"worker"`
	Address  netip.Addr        `json:"address"`
	APIURL   string            `json:"api_url"`
	Capacity Resources         `json:"capacity"`
	Runtime  string            `json:"runtime"`
	Version  string            `json:"version"`
	Release  ReleaseID         `json:"release"`
	Labels   map[string]string `json:"labels,omitempty"`
	Tunnel   TunnelEnd         `json:"tunnel,omitzero"`
}

// JoinAnswer is what a worker needs to know before it can work.
type JoinAnswer struct {
	Number   uint32 `json:"number"`
	StoreURL string `json:"store_url"`
	FleetID  string `json:"fleet_id"`
}
