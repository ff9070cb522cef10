package main

import (
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// tunnelFlags say how machines on this worker reach those on others.
type tunnelFlags struct {
	kind    string
	port    uint16
	keyLife time.Duration
}

const (
	tunnelAuto    = "auto"
	tunnelProcess = "process"
	tunnelOff     = "off"
	// minTunnelKeyLife leaves time for all workers to hear of a key before there is another.
	minTunnelKeyLife = 10 * time.Second
)

func (t *tunnelFlags) add(f *pflag.FlagSet) {
	f.StringVar(&t.kind, "tunnel", tunnelAuto,
		"WireGuard between machines on different workers: auto (the kernel's, else a process of its own), process, or off (in the clear: for a wire that nobody else is on)")
	f.Uint16Var(&t.port, "tunnel-port", tunnel.DefaultPort, "UDP port of the tunnel")
	f.DurationVar(&t.keyLife, "tunnel-key-life", 24*time.Hour,
		"how long a key of the tunnel is used")
}

func (t *tunnelFlags) check() error {
	if !slices.Contains([]string{tunnelAuto, tunnelProcess, tunnelOff}, t.kind) {
		return errs.New(errs.Invalid, "there is no tunnel %q", t.kind).
			WithRemedy("use --tunnel auto, process or off")
	}
	if t.port == 0 || t.keyLife < minTunnelKeyLife {
		return errs.New(errs.Invalid, "--tunnel-port %d, --tunnel-key-life %s", t.port, t.keyLife).
			WithRemedy("use a port of 1 or more, and a life of %s or more", minTunnelKeyLife)
	}
	return nil
}

// config is nil where machines' packets go in the clear. Dir is the worker's own.
func (t *tunnelFlags) config(dir string) *tunnel.Config {
	if t.kind == tunnelOff {
		return nil
	}
	return &tunnel.Config{Dir: dir, Port: t.port, Now: time.Now, Process: t.kind == tunnelProcess}
}
