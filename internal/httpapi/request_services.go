package httpapi

import (
	"math"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const maxCheckSeconds = 3600

func servicesFromAPI(services []api.Service) ([]fleet.Service, error) {
	known := make(map[string][]string, len(services))
	for _, s := range services {
		if err := fleet.CheckName("service", s.Name); err != nil {
			return nil, err
		}
		if _, twice := known[s.Name]; twice {
			return nil, errs.New(errs.Invalid, "two services have the name %q", s.Name).
				WithRemedy("give each a name of its own")
		}
		known[s.Name] = s.Needs
	}
	var out []fleet.Service
	for _, s := range services {
		fs, err := serviceFromAPI(s)
		if err != nil {
			return nil, err
		}
		for _, n := range s.Needs {
			if _, ok := known[n]; !ok {
				return nil, errs.New(errs.Invalid, "service %q needs %q, which the machine doesn't have", s.Name, n).
					WithRemedy("add that service, or correct the name in needs")
			}
		}
		out = append(out, fs)
	}
	if ring := findRing(known); ring != nil {
		return nil, errs.New(errs.Invalid, "services need each other in a ring: %s", strings.Join(ring, " → ")).
			WithRemedy("leave out one of these needs")
	}
	return out, nil
}

func serviceFromAPI(s api.Service) (fleet.Service, error) {
	out := fleet.Service{Name: s.Name, Cmd: s.Cmd, Env: s.Env, Dir: s.Dir, HTTPPort: s.HTTPPort, Needs: s.Needs}
	switch {
	case len(s.Cmd) == 0 || s.Cmd[0] == "":
		return out, errs.New(errs.Invalid, "service %q has no command", s.Name).
			WithRemedy("give cmd, a list of strings, of which the first names the program")
	case s.HTTPPort < 0 || s.HTTPPort > 65535:
		return out, errs.New(errs.Invalid, "http port %d of service %q is not from 1 to 65535", s.HTTPPort, s.Name).
			WithRemedy("give the port it listens on, or leave it out")
	case s.Dir != "" && !strings.HasPrefix(s.Dir, "/"):
		return out, errs.New(errs.Invalid, "directory %q of service %q does not begin with /", s.Dir, s.Name).
			WithRemedy("give an absolute path")
	}
	if err := checkEnv("service "+s.Name, s.Env); err != nil {
		return out, err
	}
	if s.Check == nil {
		return out, nil
	}
	check, err := checkFromAPI(s)
	out.Check = check
	return out, err
}

func checkFromAPI(s api.Service) (*fleet.Check, error) {
	c := *s.Check
	if c.Port == 0 {
		c.Port = s.HTTPPort
	}
	for _, d := range []float64{c.Interval, c.Timeout, c.Grace} {
		if math.IsNaN(d) || d < 0 || d > maxCheckSeconds {
			return nil, errs.New(errs.Invalid, "a duration of service %q's check is not from 0 to %d s", s.Name, maxCheckSeconds).
				WithRemedy("give seconds in that range")
		}
	}
	kind := fleet.CheckKind(c.Kind)
	switch kind {
	case fleet.CheckTCP, fleet.CheckHTTP:
		if c.Port < 1 || c.Port > 65535 {
			return nil, errs.New(errs.Invalid, "the %s check of service %q has no port", c.Kind, s.Name).
				WithRemedy("give the check a port, or the service an http_port")
		}
	case fleet.CheckExec:
		if len(c.Cmd) == 0 {
			return nil, errs.New(errs.Invalid, "the exec check of service %q has no command", s.Name).
				WithRemedy("give cmd, a list of strings, of which the first names the program")
		}
	default:
		return nil, errs.New(errs.Invalid, "check kind %q of service %q is unknown", c.Kind, s.Name).
			WithRemedy("use tcp, http or exec")
	}
	if kind == fleet.CheckHTTP {
		if c.Path == "" {
			c.Path = "/"
		}
		if !strings.HasPrefix(c.Path, "/") {
			return nil, errs.New(errs.Invalid, "the check path %q of service %q does not begin with /", c.Path, s.Name).
				WithRemedy("write it like /healthz")
		}
	}
	return &fleet.Check{Kind: kind, Port: c.Port, Path: c.Path, Cmd: c.Cmd, Interval: seconds(c.Interval),
		Timeout: seconds(c.Timeout), Grace: seconds(c.Grace)}, nil
}

// findRing returns a ring of needs, first element repeated at the end, or nil.
func findRing(needs map[string][]string) []string {
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
	names := make([]string, 0, len(needs))
	for n := range needs {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if ring := visit(n); ring != nil {
			return ring
		}
	}
	return nil
}
