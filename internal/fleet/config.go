package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of a machine's config.
const (
	MaxCPUs        = 1024
	MinMemoryMiB   = 16
	MaxMemoryMiB   = 16 << 20 // 16 TiB
	MaxDiskGiB     = 16 << 10 // 16 TiB: the limit of the disk's format
	MaxStopTimeout = 300 * time.Second
	MaxCheckTime   = time.Hour // of a check's interval, timeout and grace
	MaxServices    = 64
	MinNoFile      = 64
	MaxNoFile      = 1 << 20 // what a runtime allows a VM
	// of environments and commands: the config is a record of the fleet's state
	MaxConfigBytes = 256 << 10
	maxPort        = 65535
	maxUser        = 128 // bytes of a user's and a group's name
)

// What a machine gets where its config says nothing.
const (
	DefaultStopSignal    = "SIGTERM"
	DefaultStopTimeout   = 5 * time.Second
	DefaultCheckInterval = time.Second
	DefaultCheckTimeout  = 5 * time.Second
	DefaultCheckGrace    = 30 * time.Second
)

// MachineConfig is what the user asked for. It survives every move unchanged.
//
// A field that is added here is unknown to an older server, which can't read the record then:
// records are decoded strictly. Say so in the release's notes.
type MachineConfig struct {
	Image     ImageName         `json:"image"`
	Resources Resources         `json:"resources"`
	DiskGiB   int64             `json:"disk_gib,omitempty"` // 0: the image's size
	Env       map[string]string `json:"env,omitempty"`
	Services  []Service         `json:"services,omitempty"`
	Stop      StopConfig        `json:"stop"`
	// NoFile is the limit of open files, soft and hard, of each process that the platform starts in
	// the machine. From MinNoFile to MaxNoFile; 0: what the worker gives.
	NoFile int64 `json:"nofile,omitempty"`
	// User is whom these processes run as: USER or USER:GROUP, names or numbers; "": root.
	User string `json:"user,omitempty"`
	// NoNewPrivileges keeps these processes from getting rights that they began without.
	NoNewPrivileges bool `json:"no_new_privileges,omitempty"`
	// Isolation is what the machine must have to itself; "": what its worker gives.
	Isolation Isolation `json:"isolation,omitempty"`
}

// Isolation is what keeps a machine apart from others of its worker.
type Isolation string

// IsolationVM asks for a kernel of the machine's own.
const IsolationVM Isolation = "vm"

// GivenBy reports whether workers of a runtime give it.
func (i Isolation) GivenBy(runtime string) bool { return i == "" || runtime == "qemu" }

// StopConfig is how a machine is asked to stop: Signal, then SIGKILL after Timeout.
type StopConfig struct {
	Signal string `json:"signal,omitempty"` // "": DefaultStopSignal
	// 0: DefaultStopTimeout; at most MaxStopTimeout
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// TimeoutOrDefault returns how long the machine's processes have between the signal and SIGKILL.
func (s StopConfig) TimeoutOrDefault() time.Duration {
	return cmp.Or(s.Timeout, DefaultStopTimeout)
}

// stopSignals are those that a process can be asked to end with.
var stopSignals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1",
	"SIGUSR2", "SIGWINCH",
	"SIGABRT", "SIGKILL"}

// Validate returns an error of kind Invalid unless a machine can be run with the config, whatever
// the state of the fleet. Whether the image exists or a worker has room is the control plane's to
// say.
func (c MachineConfig) Validate() error {
	switch r := c.Resources; {
	case r.CPUMillis < 1 || r.CPUMillis > MaxCPUs*1000:
		return errs.New(errs.Invalid, "cpus %v is not from 0.001 to %d",
			float64(r.CPUMillis)/1000, MaxCPUs).
			WithRemedy("ask for a value in that range")
	case r.MemoryMiB < MinMemoryMiB || r.MemoryMiB > MaxMemoryMiB:
		return errs.New(errs.Invalid, "memory of %d MiB is not from %d to %d MiB", r.MemoryMiB,
			MinMemoryMiB, MaxMemoryMiB).
			WithRemedy("ask for a value in that range")
	case c.DiskGiB < 0 || c.DiskGiB > MaxDiskGiB:
		return errs.New(errs.Invalid, "disk of %d GiB is not from 1 to %d GiB",
			c.DiskGiB, MaxDiskGiB).
			WithRemedy("leave it out for the image's size")
	}
	if c.Isolation != "" && c.Isolation != IsolationVM {
		return errs.New(errs.Invalid, "isolation %q is not known", string(c.Isolation)).
			WithRemedy("use vm for a kernel of its own, or leave it out for what a worker gives")
	}
	if err := checkEnv("the machine", c.Env); err != nil {
		return err
	}
	if n := c.words(); n > MaxConfigBytes {
		return errs.New(errs.Invalid,
			"environments and commands of %d bytes; a machine has at most %d", n, MaxConfigBytes).
			WithRemedy("put data on the disk")
	}
	return c.ValidateServices()
}

// ValidateServices is the part of Validate that matters where the services run.
func (c MachineConfig) ValidateServices() error {
	if err := c.Stop.validate(); err != nil {
		return err
	}
	if c.NoFile != 0 && (c.NoFile < MinNoFile || c.NoFile > MaxNoFile) {
		return errs.New(errs.Invalid, "limit of %d open files is not from %d to %d", c.NoFile,
			MinNoFile, MaxNoFile).
			WithRemedy("ask for a value in that range, or leave it out for the worker's limit")
	}
	if len(c.User) > maxUser || strings.ContainsFunc(c.User, unicode.IsControl) ||
		strings.HasPrefix(c.User, ":") {
		return errs.New(errs.Invalid, "user %q is not USER or USER:GROUP", c.User).
			WithRemedy("name a user of the machine, or leave it out for root")
	}
	if len(c.Services) > MaxServices {
		return errs.New(errs.Invalid, "%d services; a machine has at most %d",
			len(c.Services), MaxServices).
			WithRemedy("start more processes from one of them, or use more machines")
	}
	for _, s := range c.Services {
		if err := s.validate(); err != nil {
			return err
		}
	}
	return checkNeeds(c.Services)
}

// words is how many bytes the config's environments and commands have.
func (c MachineConfig) words() int {
	n := sizeOfEnv(c.Env)
	for _, s := range c.Services {
		n += sizeOfEnv(s.Env)
		for _, word := range s.Cmd {
			n += len(word)
		}
	}
	return n
}

func sizeOfEnv(env map[string]string) int {
	n := 0
	for k, v := range env {
		n += len(k) + len(v)
	}
	return n
}

func (s StopConfig) validate() error {
	if s.Signal != "" && !slices.Contains(stopSignals, s.Signal) {
		return errs.New(errs.Invalid, "stop signal %q is not one that stops a machine", s.Signal).
			WithRemedy("use %s", strings.Join(stopSignals, ", "))
	}
	if s.Timeout < 0 || s.Timeout > MaxStopTimeout {
		return errs.New(errs.Invalid, "stop timeout of %v s is not from 0 to %v s",
			s.Timeout.Seconds(),
			MaxStopTimeout.Seconds()).
			WithRemedy("ask for a value in that range")
	}
	return nil
}

// checkEnv refuses environments that no process can have. The first bad name in their order is
// named.
func checkEnv(whose string, env map[string]string) error {
	bad := ""
	found := false
	for k, v := range env {
		if k != "" && !strings.ContainsAny(k, "=\x00") && !strings.Contains(v, "\x00") {
			continue
		}
		if !found || k < bad {
			bad, found = k, true
		}
	}
	if !found {
		return nil
	}
	return errs.New(errs.Invalid, "environment variable %q of %s is not allowed", bad, whose).
		WithRemedy("names have no '=', and neither names nor values have NUL bytes")
}
