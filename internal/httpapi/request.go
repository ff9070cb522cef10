package httpapi

import (
	"math"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// This file turns requests into the domain, and refuses what no fleet could do. Whether a name is taken
// or a worker has room is the control plane's to say.

// Bounds of a machine's config.
const (
	maxCPUs        = 1024
	minMemoryMiB   = 16
	maxMemoryMiB   = 16 << 20 // 16 TiB
	maxDiskGiB     = 16 << 10 // 16 TiB: the format's limit
	maxStopSeconds = 300
	maxServices    = 64
	defaultCPUs    = 1
	defaultMemory  = 256
	defaultSignal  = "SIGTERM"
)

func createFromAPI(req api.CreateMachine) (fleet.CreateMachine, error) {
	out := fleet.CreateMachine{Name: fleet.MachineName(req.Name), App: fleet.AppName(req.App),
		Network: fleet.NetworkName(req.Network), Worker: fleet.WorkerID(req.Worker), SkipStart: req.SkipStart}
	names := []struct{ what, name string }{
		{"machine", req.Name}, {"app", req.App}, {"network", req.Network}, {"image", req.Config.Image}}
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
			WithRemedy("choose a name that isn't 14 hexadecimal digits, so that the two can't be mixed up")
	}
	config, err := configFromAPI(req.Config)
	out.Config = config
	return out, err
}

func configFromAPI(c api.MachineConfig) (fleet.MachineConfig, error) {
	out := fleet.MachineConfig{Image: fleet.ImageName(c.Image), DiskGiB: c.DiskGiB, Env: c.Env}
	if c.CPUs == 0 {
		c.CPUs = defaultCPUs
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = defaultMemory
	}
	millis := math.Round(c.CPUs * 1000)
	switch {
	case math.IsNaN(c.CPUs) || millis < 1 || millis > maxCPUs*1000:
		return out, errs.New(errs.Invalid, "cpus %v is not from 0.001 to %d", c.CPUs, maxCPUs).
			WithRemedy("ask for a value in that range")
	case c.MemoryMiB < minMemoryMiB || c.MemoryMiB > maxMemoryMiB:
		return out, errs.New(errs.Invalid, "memory of %d MiB is not from %d to %d MiB", c.MemoryMiB, minMemoryMiB, maxMemoryMiB).
			WithRemedy("ask for a value in that range")
	case c.DiskGiB < 0 || c.DiskGiB > maxDiskGiB:
		return out, errs.New(errs.Invalid, "disk of %d GiB is not from 1 to %d GiB", c.DiskGiB, maxDiskGiB).
			WithRemedy("leave it out for the image's size")
	case math.IsNaN(c.StopTimeout) || c.StopTimeout < 0 || c.StopTimeout > maxStopSeconds:
		return out, errs.New(errs.Invalid, "stop timeout of %v s is not from 0 to %d s", c.StopTimeout, maxStopSeconds).
			WithRemedy("ask for a value in that range")
	case len(c.Services) > maxServices:
		return out, errs.New(errs.Invalid, "%d services; a machine has at most %d", len(c.Services), maxServices).
			WithRemedy("start more processes from one of them, or use more machines")
	}
	out.Resources = fleet.Resources{CPUMillis: int64(millis), MemoryMiB: c.MemoryMiB}
	signal, err := signalName(c.StopSignal)
	if err != nil {
		return out, err
	}
	out.Stop = fleet.StopConfig{Signal: signal, Timeout: seconds(c.StopTimeout)}
	if err := checkEnv("the machine", c.Env); err != nil {
		return out, err
	}
	out.Services, err = servicesFromAPI(c.Services)
	return out, err
}

// signalName checks a stop signal and gives it its full name. The list is that of signals which a process
// can be asked to end with.
func signalName(s string) (string, error) {
	if s == "" {
		return defaultSignal, nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGWINCH", "SIGABRT":
		return name, nil
	default:
		return "", errs.New(errs.Invalid, "stop signal %q is not one that stops a machine", s).
			WithRemedy("use SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGABRT or SIGKILL")
	}
}

func checkEnv(whose string, env map[string]string) error {
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return errs.New(errs.Invalid, "environment variable %q of %s is not allowed", k, whose).
				WithRemedy("names have no '=', and neither names nor values have NUL bytes")
		}
	}
	return nil
}
