// Package guestapi has the messages between a worker and the platform inside a VM: the boot
// document, and the types of the HTTP API that platformd serves on the VM's control stream. It does
// no I/O.
//
// Invariants: every state-changing message carries the machine's generation; repeating one has no
// further effect; platformd refuses a second, different Bind. Fields are only ever added, and an
// unknown field is ignored, so that releases N, N−1 and N−2 understand each other.
package guestapi

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Addresses and ports on the host link, the same in every VM: the link is point to point and its
// addresses are link-local, so that a saved VM can be started any number of times.
const (
	HostLinkIP  = "fe80::1" // the worker's end
	GuestLinkIP = "fe80::2" // the VM's end
	LinkName    = "eth0"    // the link's name inside the VM
	ControlPort = 7700      // platformd, on the VM's end
	GatewayPort = 7701      // the store gateway, on the worker's end
)

// PlatformMemory is what a VM has, in bytes, beyond its machine's memory: for blockd, platformd and
// init. blockd has BlockdMemory of it to itself, where cgroups bound it.
const (
	PlatformMemory = 512 << 20
	BlockdMemory   = 416 << 20
)

// BlockdCgroup is the name of blockd's cgroup, beside that of init. A runtime that bounds memory
// makes it, and blockd enters it.
//
// What platformd reads and writes of the machine's files is charged to platformd, and the machine
// dirties such pages again. Under cgroups v1 a process that needs memory is made to wait for pages
// of its cgroup to be written. blockd would wait for itself.
const BlockdCgroup = "blockd"

// PlatformProcesses is how many processes and threads a VM may have beyond its machine's.
const PlatformProcesses = 1024

// PlatformOutOfMemory says in words that PlatformMemory was not enough.
func PlatformOutOfMemory() string {
	return fmt.Sprintf("the platform of the VM is out of memory (it has %d MiB, %d of them for "+
		"the disk)", PlatformMemory>>20, BlockdMemory>>20)
}

// Files in a VM that its runtime and its init share.
const (
	// BootFile appears, whole, with the boot document: before init runs, or while it does.
	BootFile = "/run/sluice/boot.json"
	// WarmFile is made by the platform when all is done that can be done without a boot document. A
	// runtime that saves a VM, for others to be resumed from, does it then. So by then the platform
	// has drawn no secret, and no random number that has to be its own.
	WarmFile = "/run/sluice/warm"
)

// Boot is the boot document: everything that an empty VM is told.
type Boot struct {
	VM           fleet.VMID      `json:"vm"`
	Release      fleet.ReleaseID `json:"release"`
	ControlToken string          `json:"control_token"` // bearer token of platformd's API
	CacheDevice  string          `json:"cache_device"`  // block device inside the VM; "" for none
	Seed         []byte          `json:"seed"`          // fresh random bytes for the VM's RNG
	WallClock    time.Time       `json:"wall_clock"`
	// FrontEnd is how the VM's kernel is to get the disk: fuse or nbd; "" or auto for the best that
	// it has.
	FrontEnd string `json:"front_end,omitempty"`
}

// Paths of platformd's API. Everything below PathMachine is also what the fleet's API proxies to,
// below /v1/machines/{id}/, once it has authorized the caller.
const (
	PathHealth = "/v1/health" // GET → Health
	// GET → 204. Any answer shows that the platform's process works, also while it waits.
	PathAlive   = "/v1/alive"
	PathPrepare = "/v1/prepare" // POST Prepare → Health
	PathBind    = "/v1/bind"    // POST Bind → Health, once accepted; progress is in events
	// POST ReleaseMachine → Health in StateReleased, once the disk is closed
	PathReleaseMachine = "/v1/release"
	PathEvents         = "/v1/events" // GET, NDJSON of Health, one at once and one per change

	PathMachine = "/v1/machine/" // exec, logs, services, ports/{port}/…, disk, checkpoints/{name}
)

// State is what the platform in a VM is doing: any phase but PhasePreparing.
type State = fleet.Phase

// States. A VM goes through them once, in this order; Failed and Fenced are ends too.
const (
	StateEmpty     = fleet.PhaseEmpty
	StatePrepared  = fleet.PhasePrepared
	StateAttaching = fleet.PhaseAttaching
	StateStarting  = fleet.PhaseStarting
	StateRunning   = fleet.PhaseRunning
	StateHealthy   = fleet.PhaseHealthy
	StateStopping  = fleet.PhaseStopping
	StateReleased  = fleet.PhaseReleased
	StateFailed    = fleet.PhaseFailed
	StateFenced    = fleet.PhaseFenced
)

// Health is the platform's whole state.
type Health struct {
	VM         fleet.VMID       `json:"vm"`
	State      State            `json:"state"`
	Since      time.Time        `json:"since"`
	Version    string           `json:"version"`
	Machine    fleet.MachineID  `json:"machine,omitempty"`
	Generation fleet.Generation `json:"generation,omitempty"`
	Instance   fleet.InstanceID `json:"instance,omitempty"`
	ErrorKind  string           `json:"error_kind,omitempty"`
	Error      string           `json:"error,omitempty"`
	Remedy     string           `json:"remedy,omitempty"`
	Disk       fleet.DiskReport `json:"disk"`
	Stall      *fleet.DiskStall `json:"stall,omitempty"` // while the disk's store has stalled
	// Flushes is as of now in an answer, and as of the disk's close in what is said after that.
	Flushes *fleet.DiskFlushes `json:"flushes,omitempty"`
	// once a process was killed for lack of memory
	OOM      *fleet.OOMReport      `json:"oom,omitempty"`
	Services []fleet.ServiceReport `json:"services,omitempty"`
	// Platform is set once platformd was started again in this VM.
	Platform *fleet.PlatformReport `json:"platform,omitempty"`
	// Timeline has when each state was first reached.
	Timeline map[State]time.Time `json:"timeline"`
	// Steps has how long the newest parts of what was done took, in the order in which they ended.
	Steps []Step `json:"steps,omitempty"`
}

// StoreAccess is how a VM reaches its disk: through the worker's store gateway, which holds the
// credentials and lets it at nothing else.
type StoreAccess struct {
	DiskPath string `json:"disk_path"` // relative to the pool, as in disks/<id>
	// bound by the gateway to (disk path, generation, writable or not)
	Token string `json:"token"`
	// Keys open an encrypted disk, newest first. They never leave memory: the worker's, and the
	// VM's with its tmpfs.
	Keys [][]byte `json:"keys,omitempty"`
}

// Prepare warms an empty VM for a machine that still runs elsewhere, or is stopped. Read-only.
type Prepare struct {
	Machine fleet.MachineID `json:"machine"`
	Store   StoreAccess     `json:"store"`
}

// Bind makes an empty or prepared VM a machine.
type Bind struct {
	Machine    fleet.MachineID     `json:"machine"`
	Generation fleet.Generation    `json:"generation"`
	Instance   fleet.InstanceID    `json:"instance"`
	Name       fleet.MachineName   `json:"name"`
	App        fleet.AppName       `json:"app"`
	Network    fleet.NetworkName   `json:"network"`
	Address    netip.Addr          `json:"address"`
	MTU        int                 `json:"mtu,omitempty"` // bytes; 0: as the links have it
	Worker     fleet.WorkerID      `json:"worker"`
	Store      StoreAccess         `json:"store"`
	Config     fleet.MachineConfig `json:"config"`
	// Secrets are in the environment of all that is started in the machine, over the config's.
	Secrets map[string]string `json:"secrets,omitempty"`
}

// ReleaseMachine asks the platform to stop the machine and to close its disk: stop signal, SIGKILL,
// unmount, flush, close.
type ReleaseMachine struct {
	Machine    fleet.MachineID  `json:"machine"`
	Generation fleet.Generation `json:"generation"`
}

// HeaderError marks an answer whose body is an Error of the platform, as opposed to an answer of a
// user's program through ports/.
const HeaderError = "Sluice-Error"

// HeaderInstance, in an answer with logs, has the instance id of the machine that wrote them.
const HeaderInstance = "Sluice-Instance"

// Exec frames, on a WebSocket at PathMachine+"exec": each binary message starts with one of these
// bytes. Query: cmd (repeated), env (repeated K=V), dir, tty=1, rows, cols, stdin=1; or command=1
// in place of cmd and env, which then come in the first message. Text messages are JSON, from the
// client: {"type":"resize","rows":R,"cols":C} or {"type":"signal","signal":"SIGTERM"}; an unknown
// type is ignored.
const (
	FrameStdin    byte = 0
	FrameStdout   byte = 1
	FrameStderr   byte = 2
	FrameExit     byte = 3 // one more byte: the exit code; the last message of a session
	FrameStdinEOF byte = 4
	// the rest is an Error as JSON: the command could not be run; the last message
	FrameError   byte = 5
	FrameCommand byte = 6 // from the client, the first message: the rest is an ExecCommand as JSON
)

// ExecCommand is a command that is too long for a query.
type ExecCommand struct {
	Cmd []string `json:"cmd"`
	Env []string `json:"env,omitempty"` // K=V
}
