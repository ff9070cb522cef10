package fleet

import "github.com/sluice-platform/sluice/internal/x/errs"

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
