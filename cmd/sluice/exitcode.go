package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Exit codes; docs/cli.md has the same table.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
	exitDenied      = 6
	exitExhausted   = 7
	exitBlocked     = 8   // a drain or a move that did not get there
	exitExecFailed  = 125 // machine exec: the command's fate is not known
	exitNotRunnable = 126 // machine exec: the command could not be run
	exitNoCommand   = 127 // machine exec: there is no such command
	exitInterrupted = 130
)

// exitTable is what a help text says; extra lines are added for commands with codes of their own.
const exitTable = `
EXIT STATUS
  0  done
  1  failed
  2  wrong usage or invalid input
  3  not found
  4  conflict, or it exists already
  5  unavailable: try again
  6  denied
  7  no capacity`

// codedError gives an error its exit code. err may be nil where all has been said.
type codedError struct {
	code int
	err  error
	// usage: the command was called wrongly, so print its usage line. The code can't tell, because
	// a command in a machine may exit with any.
	usage bool
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// usageError is for wrong arguments.
func usageError(format string, args ...any) error {
	return &codedError{code: exitUsage, usage: true, err: errs.New(errs.Invalid, format, args...)}
}

// several are the errors, at least one, of a command that works on many things. Each is printed,
// and the highest exit code is the command's.
type several []error

func (s several) Error() string { return errors.Join(s...).Error() }

// finish prints an error, if there is one, and returns the exit code.
func finish(d *deps, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	// It is the outermost, or one of its parts would be matched.
	if all, ok := err.(several); ok { //nolint:errorlint // see above
		code := exitOK
		for _, one := range all {
			code = max(code, finish(d, cmd, one))
		}
		return code
	}
	var coded *codedError
	if !errors.As(err, &coded) {
		coded = &codedError{code: exitCode(err), err: err}
	}
	if coded.err == nil {
		return coded.code
	}
	usage := ""
	if coded.usage && cmd != nil {
		usage = "usage: " + cmd.UseLine()
	}
	if d.json && d.env(backgroundErrors) == "" {
		printErrorJSON(d.stderr, coded.err, usage)
		return coded.code
	}
	printError(d.stderr, coded.err)
	if usage != "" {
		fmt.Fprintln(d.stderr, usage)
	}
	return coded.code
}

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	switch errorKind(err) {
	case errs.Invalid:
		return exitUsage
	case errs.NotFound:
		return exitNotFound
	case errs.Conflict, errs.Exists, errs.Fenced:
		return exitConflict
	case errs.Unavailable:
		return exitUnavailable
	case errs.Denied:
		return exitDenied
	case errs.Exhausted:
		return exitExhausted
	default:
		return exitFailed
	}
}

// errorKind is the kind of an error of the API or of our own.
func errorKind(err error) errs.Kind {
	var remote *api.Error
	if errors.As(err, &remote) {
		return errs.Kind(remote.Code)
	}
	return errs.KindOf(err)
}

// explain splits an error into what went wrong, why, and what to do.
func explain(err error) api.Error {
	var remote *api.Error
	if errors.As(err, &remote) {
		return *remote
	}
	if errors.Is(err, context.Canceled) {
		return api.Error{Code: "interrupted", Message: "interrupted"}
	}
	out := api.Error{Code: string(errs.KindOf(err)), Message: err.Error(),
		Remedy: errs.RemedyOf(err)}
	var e *errs.Error
	if errors.As(err, &e) && e.Cause != nil {
		cause := e.Cause.Error()
		if message, ok := strings.CutSuffix(out.Message, ": "+cause); ok {
			out.Message, out.Cause = message, cause
		}
	}
	return out
}

// printErrorJSON writes an error as programs get it from the API too: one line, the last on stderr.
// The usage line, where there is one, is the remedy.
func printErrorJSON(w io.Writer, err error, usage string) {
	e := explain(err)
	if e.Remedy == "" {
		e.Remedy = usage
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(api.ErrorBody{Error: e}) // nobody is left to tell that stderr is closed
}

// printError writes what went wrong, why, and what to do.
func printError(w io.Writer, err error) {
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "interrupted")
		return
	}
	message, cause, remedy := err.Error(), "", errs.RemedyOf(err)
	var remote *api.Error
	if errors.As(err, &remote) {
		message, cause, remedy = remote.Message, remote.Cause, remote.Remedy
	}
	fmt.Fprintf(w, "error: %s\n", message)
	if cause != "" {
		fmt.Fprintf(w, "cause: %s\n", cause)
	}
	if remedy != "" {
		fmt.Fprintf(w, "try: %s\n", remedy)
	}
	if remote != nil && remote.RequestID != "" && client.IsCode(err, "internal") {
		fmt.Fprintf(w, "request: %s (it is in the server's log)\n", remote.RequestID)
	}
}
