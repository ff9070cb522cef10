package fleet_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// good is a config that has everything.
func good() fleet.MachineConfig {
	return fleet.MachineConfig{
		Image: "base", Resources: fleet.Resources{CPUMillis: 500, MemoryMiB: 64}, DiskGiB: 8,
		Env:  map[string]string{"A": "b=c"},
		Stop: fleet.StopConfig{Signal: "SIGINT", Timeout: time.Minute}, NoFile: 64,
		Services: []fleet.Service{
			{Name: "db", Cmd: []string{"db"}},
			{Name: "web", Cmd: []string{"httpd", "-f"}, Dir: "/srv", HTTPPort: 80,
				Needs: []string{"db"},
				Check: &fleet.Check{Kind: fleet.CheckHTTP, Path: "/", Grace: time.Minute}},
		},
	}
}

func TestAGoodConfigIsValid(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
}

// TestBadConfigsAreRefused: each error is Invalid, says what is wrong, and what to do.
func TestBadConfigsAreRefused(t *testing.T) {
	for want, spoil := range map[string]func(c *fleet.MachineConfig){
		"cpus 0": func(c *fleet.MachineConfig) { c.Resources.CPUMillis = 0 },
		"cpus 2000": func(c *fleet.MachineConfig) {
			c.Resources.CPUMillis = 2000_000
		},
		"memory of 15 MiB":      func(c *fleet.MachineConfig) { c.Resources.MemoryMiB = 15 },
		"disk of -1 GiB":        func(c *fleet.MachineConfig) { c.DiskGiB = -1 },
		"disk of 16385 GiB":     func(c *fleet.MachineConfig) { c.DiskGiB = 16385 },
		`variable "" of the`:    func(c *fleet.MachineConfig) { c.Env[""] = "x" },
		`variable "A=B" of the`: func(c *fleet.MachineConfig) { c.Env["A=B"] = "x" },
		`variable "N" of the`:   func(c *fleet.MachineConfig) { c.Env["N"] = "a\x00b" },
		`variable "N" of service`: func(c *fleet.MachineConfig) {
			c.Services[1].Env = map[string]string{"N": "\x00"}
		},
		"at most 262144": func(c *fleet.MachineConfig) {
			c.Env["BIG"] = strings.Repeat("x", 256<<10)
		},
		`signal "SIGCONT"`: func(c *fleet.MachineConfig) { c.Stop.Signal = "SIGCONT" },
		"timeout of 301 s": func(c *fleet.MachineConfig) {
			c.Stop.Timeout = 301 * time.Second
		},
		"is not USER or USER:GROUP":   func(c *fleet.MachineConfig) { c.User = ":www" },
		`user "a\nb" is not USER`:     func(c *fleet.MachineConfig) { c.User = "a\nb" },
		"limit of 63 open files":      func(c *fleet.MachineConfig) { c.NoFile = 63 },
		"limit of -1 open files":      func(c *fleet.MachineConfig) { c.NoFile = -1 },
		"limit of 1048577 open files": func(c *fleet.MachineConfig) { c.NoFile = 1<<20 + 1 },
		"65 services": func(c *fleet.MachineConfig) {
			c.Services = make([]fleet.Service, 65)
		},
		`service name "W"`:     func(c *fleet.MachineConfig) { c.Services[1].Name = "W" },
		`have the name "db"`:   func(c *fleet.MachineConfig) { c.Services[1].Name = "db" },
		`"web" has no command`: func(c *fleet.MachineConfig) { c.Services[1].Cmd = nil },
		"http port 65536": func(c *fleet.MachineConfig) {
			c.Services[1].HTTPPort = 65536
		},
		`directory "srv"`: func(c *fleet.MachineConfig) { c.Services[1].Dir = "srv" },
		`"web" needs "dbb"`: func(c *fleet.MachineConfig) {
			c.Services[1].Needs = []string{"dbb"}
		},
		"ring: db → web → db": func(c *fleet.MachineConfig) {
			c.Services[0].Needs = []string{"web"}
		},
		`kind "udp" of service`: func(c *fleet.MachineConfig) {
			c.Services[1].Check.Kind = "udp"
		},
		"http check of service": func(c *fleet.MachineConfig) { c.Services[1].HTTPPort = 0 },
		"exec check of service": func(c *fleet.MachineConfig) {
			c.Services[1].Check.Kind = fleet.CheckExec
		},
		`check path "health"`: func(c *fleet.MachineConfig) {
			c.Services[1].Check.Path = "health"
		},
		"a duration of service": func(c *fleet.MachineConfig) {
			c.Services[1].Check.Interval = -1
		},
		`a duration of service "web`: func(c *fleet.MachineConfig) {
			c.Services[1].Check.Grace = 61 * time.Minute
		},
	} {
		c := good()
		spoil(&c)
		err := c.Validate()
		var e *errs.Error
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		} else if !errors.As(err, &e) || e.Remedy == "" {
			t.Errorf("%v has no remedy", err)
		}
	}
}
