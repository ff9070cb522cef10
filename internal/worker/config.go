package worker

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

// Config of a worker. Zero durations and sizes mean their defaults.
type Config struct {
	Worker  fleet.WorkerID
	DataDir string     // the worker's own; kept over restarts
	Address netip.Addr // underlay address
	APIURL  string     // where the server reaches Deps.Listener
	// ScrapeToken is a bearer token that may read /metrics and nothing else; "": there is none.
	// The server may read /metrics, too.
	ScrapeToken string
	Capacity    fleet.Resources // what machines may use
	Labels      map[string]string
	Version     string          // of this binary
	Release     fleet.ReleaseID // of the platform that new VMs get
	ReleaseDir  string          // the release's files

	Pool       int   // VMs kept ready
	CacheBytes int64 // cache device of each VM
	// GatewayBytes is what all VMs' gateways may have of bodies in memory, beside 16 MiB that each
	// has for itself; default 256 MiB.
	GatewayBytes int64
	// Limits bounds what each VM may do to the store.
	Limits   gateway.Limits
	FrontEnd string // how a VM's kernel gets its disk; see guestapi.Boot
	// Overhead is what a VM gets on top of its machine's resources, for the platform; default 1
	// core, 512 MiB.
	Overhead fleet.Resources

	BootTimeout time.Duration // from a VM's start to its first answer; default 30 s
	StepTimeout time.Duration // how long one step may keep failing; default 30 s
	// allowed beyond the machine's stop timeout, for unmount and flush; default 30 s
	CloseGrace  time.Duration
	CloseMax    time.Duration // added while the platform still answers; default 5 min
	SilentAfter time.Duration // no answer for this long is reported; default 10 s
	Heartbeat   time.Duration // longest between two reports; default 1 s
	Coalesce    time.Duration // changes this close go into one report; default 1 ms
	PoolQuiet   time.Duration // how long after a claim the pool isn't refilled; default 200 ms
	// TunnelKeyLife is how long a key of the tunnel to other workers is used; default 24 h.
	TunnelKeyLife time.Duration
}

// Deps of a worker.
type Deps struct {
	Driver  runtime.Driver
	HostNet fleet.HostNet
	Server  fleet.WorkerFeed
	// OpenStore opens the fleet's pool of disks, with the credentials of StoreKeys.
	OpenStore func(ctx context.Context, url string) (blob.Store, error)
	// StoreKeys holds the store's credentials; nil: it needs none.
	StoreKeys StoreKeys
	// ListenGateway opens the gateway's port on a VM's link; nil: gateway.Listen.
	ListenGateway func(ctx context.Context, link string) (net.Listener, error)
	Listener      net.Listener // of the worker's API, with TLS; Run closes it
	// Identity is the worker's certificate, and knows the server's.
	Identity Identity
	// Pressure reads how much of the time work waits on this host; nil: from the kernel.
	Pressure func() (fleet.Pressure, error)
	// Metrics counts events; nil: they aren't exposed. Exposition serves /metrics; nil: it is not
	// served.
	Metrics    *metrics.Metrics
	Exposition http.Handler
	Traces     *tracing.Tracer // of moves; nil: nobody is told
	Logger     *slog.Logger
	Now        func() time.Time // nil: time.Now
}

// StoreKeys is a worker's credentials of the store. Safe for concurrent use.
type StoreKeys interface {
	// Run has them renewed until ctx ends.
	Run(ctx context.Context) error
	// Report returns which are used; nil where the store needs none.
	Report() *fleet.StoreKeyReport
	// Trouble returns why they won't do for long, and since when; nil: they will.
	Trouble() (since time.Time, err error)
}

// noStoreKeys is for a store that needs none.
type noStoreKeys struct{}

func (noStoreKeys) Run(context.Context) error     { return nil }
func (noStoreKeys) Report() *fleet.StoreKeyReport { return nil }
func (noStoreKeys) Trouble() (time.Time, error)   { return time.Time{}, nil }

func (c *Config) setDefaults() {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.BootTimeout, 30*time.Second)
	set(&c.StepTimeout, 30*time.Second)
	set(&c.CloseGrace, 30*time.Second)
	set(&c.CloseMax, 5*time.Minute)
	set(&c.SilentAfter, 10*time.Second)
	set(&c.Heartbeat, time.Second)
	set(&c.Coalesce, time.Millisecond)
	set(&c.TunnelKeyLife, 24*time.Hour)
	if c.Overhead == (fleet.Resources{}) {
		c.Overhead = fleet.Resources{CPUMillis: 1000, MemoryMiB: guestapi.PlatformMemory >> 20}
	}
}

func (c *Config) validate() error {
	if err := fleet.CheckName("worker", string(c.Worker)); err != nil {
		return err
	}
	switch {
	case c.DataDir == "":
		return errs.New(errs.Invalid, "worker %s has no data directory", c.Worker).
			WithRemedy("set --data")
	case !c.Address.IsValid() || c.APIURL == "":
		return errs.New(errs.Invalid, "worker %s has no address", c.Worker).
			WithRemedy("set --address and --listen")
	case c.ReleaseDir == "" || c.Release == "":
		return errs.New(errs.Invalid, "worker %s has no release of the platform", c.Worker).
			WithRemedy("set --release")
	case c.Pool < 0 || c.CacheBytes < 0 || c.Capacity.CPUMillis <= 0 || c.Capacity.MemoryMiB <= 0:
		return errs.New(errs.Invalid, "worker %s has an impossible pool, cache or capacity",
			c.Worker).
			WithRemedy(
				"set --pool and --cache-mib to 0 or more, --cpus and --memory to more than 0")
	}
	return nil
}

func (d *Deps) validate() error {
	if d.Driver == nil || d.HostNet == nil || d.Server == nil || d.OpenStore == nil ||
		d.Listener == nil || d.Logger == nil || d.Identity == nil {
		return errs.New(errs.Internal, "a worker needs all of its parts")
	}
	if d.ListenGateway == nil {
		d.ListenGateway = gateway.Listen
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.StoreKeys == nil {
		d.StoreKeys = noStoreKeys{}
	}
	if d.Metrics == nil {
		d.Metrics = metrics.New(nil)
	}
	if d.Pressure == nil {
		d.Pressure = hostPressure()
	}
	return nil
}
