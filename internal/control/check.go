package control

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of what a user may ask for.
const (
	maxDiskGiB     = 16 << 10
	maxStopTimeout = 300 * time.Second
	maxConfigBytes = 256 << 10 // of environment and commands: it is a record in the fleet's state
)

// checkCreate refuses a request that can never be met, whatever the state of the fleet's workers.
func (c *Control) checkCreate(req fleet.CreateMachine) error {
	for _, n := range [][2]string{{"machine", string(req.Name)}, {"app", string(req.App)}, {"network", string(req.Network)}} {
		if err := fleet.CheckName(n[0], n[1]); err != nil {
			return err
		}
	}
	image, ok := get(c.cache, c.cache.images, keyImage(req.Config.Image))
	if !ok {
		return noImage(req.Config.Image)
	}
	if err := c.fits(req.Config.Resources); err != nil {
		return err
	}
	if d := req.Config.DiskGiB; d < 0 || d > maxDiskGiB {
		return errs.New(errs.Invalid, "a disk of %d GiB", d).WithRemedy("ask for 1 to %d GiB, or leave it out for the image's size", maxDiskGiB)
	} else if d > 0 && d<<30 < image.val.SizeBytes {
		return errs.New(errs.Invalid, "a disk of %d GiB is smaller than image %s", d, image.val.Name).
			WithRemedy("ask for at least %d GiB", (image.val.SizeBytes+1<<30-1)>>30)
	}
	return checkConfig(req.Config)
}

func noImage(name fleet.ImageName) error {
	return errs.New(errs.NotFound, "there is no image %q", name).WithRemedy("list them with sluice image list, or make it: sluice image create %s --from …", orName(name))
}

func orName(name fleet.ImageName) string {
	if name == "" {
		return "NAME"
	}
	return string(name)
}

func checkConfig(cfg fleet.MachineConfig) error {
	if t := cfg.Stop.Timeout; t < 0 || t > maxStopTimeout {
		return errs.New(errs.Invalid, "a stop timeout of %s", t).WithRemedy("choose one between 0 and %s", maxStopTimeout)
	}
	size := 0
	for k, v := range cfg.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return errs.New(errs.Invalid, "an environment variable %q", k).WithRemedy("write it as NAME=VALUE")
		}
		size += len(k) + len(v)
	}
	known := map[string]bool{}
	for _, s := range cfg.Services {
		if err := fleet.CheckName("service", s.Name); err != nil {
			return err
		}
		if known[s.Name] {
			return errs.New(errs.Invalid, "two services are called %s", s.Name)
		}
		known[s.Name] = true
		if len(s.Cmd) == 0 || s.Cmd[0] == "" {
			return errs.New(errs.Invalid, "service %s has no command", s.Name)
		}
		if s.HTTPPort < 0 || s.HTTPPort > 65535 {
			return errs.New(errs.Invalid, "service %s has http port %d", s.Name, s.HTTPPort)
		}
		for _, word := range s.Cmd {
			size += len(word)
		}
	}
	if size > maxConfigBytes {
		return errs.New(errs.Invalid, "environment and commands of %d bytes", size).WithRemedy("keep them under %d; put data on the disk", maxConfigBytes)
	}
	return checkNeeds(cfg.Services, known)
}

// checkNeeds refuses services that need one that isn't there, or each other in a circle.
func checkNeeds(services []fleet.Service, known map[string]bool) error {
	needs := map[string][]string{}
	for _, s := range services {
		for _, n := range s.Needs {
			if !known[n] {
				return errs.New(errs.Invalid, "service %s needs %s, which isn't there", s.Name, n)
			}
		}
		needs[s.Name] = s.Needs
	}
	const visiting, visited = 1, 2
	mark := map[string]int{}
	var visit func(string) error
	visit = func(n string) error {
		if mark[n] == visiting {
			return errs.New(errs.Invalid, "service %s needs itself, by way of others", n)
		}
		if mark[n] == visited {
			return nil
		}
		mark[n] = visiting
		for _, next := range needs[n] {
			if err := visit(next); err != nil {
				return err
			}
		}
		mark[n] = visited
		return nil
	}
	for _, s := range services {
		if err := visit(s.Name); err != nil {
			return fmt.Errorf("order the services: %w", err)
		}
	}
	return nil
}
