package httpapi

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// This file turns requests into the domain, and refuses what no fleet could do. Whether a name is
// taken or a worker has room is the control plane's to say.

// What a machine gets where the request says nothing.
const (
	defaultCPUs   = 1
	defaultMemory = 256 // MiB
)

func createFromAPI(req api.CreateMachine) (fleet.CreateMachine, error) {
	out := fleet.CreateMachine{Name: fleet.MachineName(req.Name), App: fleet.AppName(req.App),
		Network: fleet.NetworkName(req.Network), Worker: fleet.WorkerID(req.Worker),
		SkipStart: req.SkipStart, Encrypt: req.Encrypt}
	names := []struct{ what, name string }{
		{"machine", req.Name}, {"app", req.App}, {"network", req.Network},
		{"image", req.Config.Image}}
	if req.Worker != "" {
		names = append(names, struct{ what, name string }{"worker", req.Worker})
	}
	for _, n := range names {
		if err := fleet.CheckName(n.what, n.name); err != nil {
			return out, err
		}
	}
	if fleet.IsMachineID(req.Name) {
		return out, errs.New(errs.Invalid, "machine name %q looks like a machine id", req.Name).
			WithRemedy(
				"choose a name that isn't 14 hexadecimal digits, so that the two can't be mixed up")
	}
	config, err := configFromAPI(req.Config)
	out.Config = config
	return out, err
}

// configFromAPI returns the config with its defaults. Invalid: see fleet.MachineConfig.Validate.
func configFromAPI(c api.MachineConfig) (fleet.MachineConfig, error) {
	out := fleet.MachineConfig{Image: fleet.ImageName(c.Image), DiskGiB: c.DiskGiB, Env: c.Env,
		NoFile: c.NoFile, User: c.User, NoNewPrivileges: c.NoNewPrivileges,
		Isolation: fleet.Isolation(c.Isolation)}
	cpus := cmp.Or(c.CPUs, defaultCPUs)
	if millis := math.Round(cpus * 1000); millis >= 1 && millis <= fleet.MaxCPUs*1000 {
		out.Resources.CPUMillis = int64(millis)
	} else {
		return out, errs.New(errs.Invalid, "cpus %v is not from 0.001 to %d", c.CPUs,
			fleet.MaxCPUs).
			WithRemedy("ask for a value in that range")
	}
	out.Resources.MemoryMiB = cmp.Or(c.MemoryMiB, defaultMemory)
	timeout, err := seconds("stop timeout", c.StopTimeout)
	if err != nil {
		return out, err
	}
	out.Stop = fleet.StopConfig{Signal: signalName(c.StopSignal), Timeout: timeout}
	for _, s := range c.Services {
		service, err := serviceFromAPI(s)
		if err != nil {
			return out, err
		}
		out.Services = append(out.Services, service)
	}
	return out, out.Validate()
}

// signalName gives a signal its full name.
func signalName(s string) string {
	if s == "" {
		return fleet.DefaultStopSignal
	}
	return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
}

func serviceFromAPI(s api.Service) (fleet.Service, error) {
	out := fleet.Service{Name: s.Name, Cmd: s.Cmd, Env: s.Env, Dir: s.Dir, HTTPPort: s.HTTPPort,
		Needs: s.Needs}
	if s.Check == nil {
		return out, nil
	}
	c, whose := *s.Check, "check of service "+s.Name+": "
	interval, err := seconds(whose+"interval", c.Interval)
	if err != nil {
		return out, err
	}
	timeout, err := seconds(whose+"timeout", c.Timeout)
	if err != nil {
		return out, err
	}
	grace, err := seconds(whose+"grace", c.Grace)
	if err != nil {
		return out, err
	}
	out.Check = &fleet.Check{Kind: fleet.CheckKind(c.Kind),
		Port: cmp.Or(c.Port, s.HTTPPort), Path: c.Path,
		Cmd: c.Cmd, Interval: interval, Timeout: timeout, Grace: grace}
	if out.Check.Kind == fleet.CheckHTTP {
		out.Check.Path = cmp.Or(c.Path, "/")
	}
	return out, nil
}

// maxSeconds keeps durations from overflowing; each has a smaller bound of its own.
const maxSeconds = 1e9

// seconds turns seconds into a duration. Invalid: they are negative, or no number.
func seconds(what string, s float64) (time.Duration, error) {
	if !(s >= 0 && s <= maxSeconds) {
		return 0, errs.New(errs.Invalid, "%s of %v s is out of range", what, s).
			WithRemedy("give seconds, 0 or more")
	}
	return time.Duration(s * float64(time.Second)), nil
}
