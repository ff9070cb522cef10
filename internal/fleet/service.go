package fleet

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Service is a process that the platform keeps running inside the machine.
type Service struct {
	Name     string            `json:"name"`
	Cmd      []string          `json:"cmd"`
	Env      map[string]string `json:"env,omitempty"`
	Dir      string            `json:"dir,omitempty"`
	HTTPPort int               `json:"http_port,omitempty"` // 0: none
	Needs    []string          `json:"needs,omitempty"`     // started before this one
	Check    *Check            `json:"check,omitempty"`     // readiness; none: ready once started
}

// CheckKind is how a check asks.
type CheckKind string

// Check kinds.
const (
	CheckTCP  CheckKind = "tcp"
	CheckHTTP CheckKind = "http"
	CheckExec CheckKind = "exec"
)

// Check tells whether a service is ready. Times are at most MaxCheckTime; 0 is the default.
type Check struct {
	Kind     CheckKind     `json:"kind"`
	Port     int           `json:"port,omitempty"` // 0: the service's HTTP port
	Path     string        `json:"path,omitempty"`
	Cmd      []string      `json:"cmd,omitempty"`
	Interval time.Duration `json:"interval_ns,omitempty"` // much shorter until the first success
	Timeout  time.Duration `json:"timeout_ns,omitempty"`
	Grace    time.Duration `json:"grace_ns,omitempty"` // failures before this don't count
}

// CheckPort returns the port that the service's check asks: its own, or the service's HTTP port; 0:
// none.
func (s Service) CheckPort() int {
	if s.Check != nil && s.Check.Port != 0 {
		return s.Check.Port
	}
	return s.HTTPPort
}

func (s Service) validate() error {
	if err := CheckName("service", s.Name); err != nil {
		return err
	}
	switch {
	case len(s.Cmd) == 0 || s.Cmd[0] == "":
		return errs.New(errs.Invalid, "service %q has no command", s.Name).
			WithRemedy("give cmd, a list of strings, of which the first names the program")
	case s.HTTPPort < 0 || s.HTTPPort > maxPort:
		return errs.New(errs.Invalid, "http port %d of service %q is not from 1 to %d", s.HTTPPort,
			s.Name, maxPort).
			WithRemedy("give the port it listens on, or leave it out")
	case s.Dir != "" && !strings.HasPrefix(s.Dir, "/"):
		return errs.New(errs.Invalid, "directory %q of service %q does not begin with /",
			s.Dir, s.Name).
			WithRemedy("give an absolute path")
	}
	if err := checkEnv("service "+s.Name, s.Env); err != nil {
		return err
	}
	if s.Check == nil {
		return nil
	}
	return s.validateCheck()
}

func (s Service) validateCheck() error {
	c := s.Check
	for _, d := range []time.Duration{c.Interval, c.Timeout, c.Grace} {
		if d < 0 || d > MaxCheckTime {
			return errs.New(errs.Invalid, "a duration of service %q's check is not from 0 to %s",
				s.Name, MaxCheckTime).
				WithRemedy("give a time in that range")
		}
	}
	switch c.Kind {
	case CheckExec:
		if len(c.Cmd) == 0 {
			return errs.New(errs.Invalid, "the exec check of service %q has no command", s.Name).
				WithRemedy("give cmd, a list of strings, of which the first names the program")
		}
		return nil
	case CheckTCP, CheckHTTP:
	default:
		return errs.New(errs.Invalid, "check kind %q of service %q is unknown", c.Kind, s.Name).
			WithRemedy("use tcp, http or exec")
	}
	switch port := s.CheckPort(); {
	case port < 1 || port > maxPort:
		return errs.New(errs.Invalid, "the %s check of service %q has no port", c.Kind, s.Name).
			WithRemedy("give the check a port from 1 to %d, or the service an http_port", maxPort)
	case c.Path != "" && !strings.HasPrefix(c.Path, "/"):
		return errs.New(errs.Invalid, "the check path %q of service %q does not begin with /",
			c.Path, s.Name).
			WithRemedy("write it like /healthz")
	}
	return nil
}

// checkNeeds refuses services with one name, that need one which isn't there, or each other in a
// ring.
func checkNeeds(services []Service) error {
	needs := make(map[string][]string, len(services))
	for _, s := range services {
		if _, twice := needs[s.Name]; twice {
			return errs.New(errs.Invalid, "two services have the name %q", s.Name).
				WithRemedy("give each a name of its own")
		}
		needs[s.Name] = s.Needs
	}
	for _, s := range services {
		for _, n := range s.Needs {
			if _, ok := needs[n]; !ok {
				return errs.New(errs.Invalid, "service %q needs %q, which the machine doesn't have",
					s.Name, n).
					WithRemedy("add that service, or correct the name in needs")
			}
		}
	}
	if ring := findRing(services, needs); ring != nil {
		return errs.New(errs.Invalid, "services need each other in a ring: %s",
			strings.Join(ring, " → ")).
			WithRemedy("leave out one of these needs")
	}
	return nil
}

// findRing returns a ring of needs, with its first element repeated at the end, or nil.
func findRing(services []Service, needs map[string][]string) []string {
	done := make(map[string]bool, len(needs))
	var path []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if at := slices.Index(path, name); at >= 0 {
			return append(slices.Clone(path[at:]), name)
		}
		if done[name] {
			return nil
		}
		path = append(path, name)
		for _, n := range needs[name] {
			if ring := visit(n); ring != nil {
				return ring
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		return nil
	}
	for _, s := range services {
		if ring := visit(s.Name); ring != nil {
			return ring
		}
	}
	return nil
}
