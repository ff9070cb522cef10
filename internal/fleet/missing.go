package fleet

import (
	"fmt"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// What is not there, and what the caller may not see, must be told in the very same words. So these
// errors are made here alone.

// NoMachine is the error for a reference that names no machine.
func NoMachine(ref string) error {
	return errs.New(errs.NotFound, "there is no machine %q", ref).
		WithRemedy("list them: sluice machine list")
}

// NoMove is the error for an id that names no move.
func NoMove(id MoveID) error {
	return errs.New(errs.NotFound, "there is no move %q", id).
		WithRemedy("see what the machine did: sluice machine events MACHINE")
}

// NoToken is the error for a name or id that names no token.
func NoToken(ref string) error {
	return errs.New(errs.NotFound, "there is no token %q", ref).
		WithRemedy("list them: sluice token list")
}

// ManyMachines is the error for a reference that names several machines, all of which the caller
// sees. An id tells any two apart, app/name only two of different apps.
func ManyMachines(ref string, found []Machine) error {
	var names []string
	ways, apps := []string{}, map[AppName]bool{}
	for _, m := range found {
		names = append(names, fmt.Sprintf("%s/%s in network %s (%s)", m.App, m.Name, m.Network,
			m.ID))
		ways = append(ways, string(m.ID))
		apps[m.App] = true
	}
	if len(apps) == len(found) {
		ways = ways[:0]
		for _, m := range found {
			ways = append(ways, fmt.Sprintf("%s/%s", m.App, m.Name))
		}
	}
	return errs.New(errs.Conflict, "%d machines are called %s: %s", len(found), ref,
		strings.Join(names, ", ")).
		WithRemedy("say which: %s", strings.Join(ways, ", or "))
}

// ManyTokens is the error for a name that several tokens have, all of which the caller sees.
func ManyTokens(name string, found []Token) error {
	var all, ids []string
	for _, t := range found {
		var grants []string
		for _, g := range t.Grants {
			grants = append(grants, g.String())
		}
		all = append(all, fmt.Sprintf("%s (%s, made by %s)", t.ID, strings.Join(grants, " "),
			t.CreatedBy))
		ids = append(ids, string(t.ID))
	}
	return errs.New(errs.Conflict, "%d tokens are called %s: %s", len(found), name,
		strings.Join(all, ", ")).
		WithRemedy("say which by its id: %s", strings.Join(ids, ", or "))
}

// NamesWorkers is an error that names workers of the fleet. Who may not see those is told Else in
// its place, which is of the same kind.
type NamesWorkers struct{ Err, Else error }

// Error implements error.
func (e *NamesWorkers) Error() string { return e.Err.Error() }

// Unwrap returns the error that names them.
func (e *NamesWorkers) Unwrap() error { return e.Err }
