// Package errs is the one error vocabulary of Sluice.
//
// Every error that crosses a package or a wire carries a Kind, which callers match on, and may
// carry a Remedy: what the person who sees it can do next. Kinds are append-only, because they
// cross the wire between releases. Text is for people and is never matched.
package errs

import (
	"errors"
	"fmt"
)

// Kind classifies an error. The zero value is not used; see KindOf.
type Kind string

// The kinds. Append only: they cross the wire.
const (
	Invalid     Kind = "invalid"     // the request itself is wrong; repeating it won't help
	NotFound    Kind = "not_found"   // what it names doesn't exist
	Exists      Kind = "exists"      // what it would create exists already
	Conflict    Kind = "conflict"    // it clashes with the present state, or lost a race
	Denied      Kind = "denied"      // the caller may not do this
	Unavailable Kind = "unavailable" // try again later; the only kind that is retried by machines
	Exhausted   Kind = "exhausted"   // no capacity, quota or space
	// stored bytes fail their checks; nothing may be written on top
	Corrupt     Kind = "corrupt"
	Fenced      Kind = "fenced"      // a newer owner exists; stop writing for good
	Unsupported Kind = "unsupported" // this build, host, store or release can't do it
	Internal    Kind = "internal"    // a bug
)

// Error is an error with a kind, and optionally a remedy and a cause.
type Error struct {
	Kind    Kind
	Message string
	Remedy  string
	Cause   error
}

// Error returns the message followed by the cause.
func (e *Error) Error() string {
	switch {
	case e.Cause == nil:
		return e.Message
	case e.Message == "":
		return e.Cause.Error()
	default:
		return e.Message + ": " + e.Cause.Error()
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns an error of a kind.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap gives cause a kind and says what was being done.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// WithRemedy returns a copy of e that says what to do about it.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	c := *e
	c.Remedy = fmt.Sprintf(format, args...)
	return &c
}

// KindOf returns the kind of the outermost *Error in err's chain; Internal where there is none, and
// the empty Kind for a nil error.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of the given kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// RemedyOf returns the outermost remedy in err's chain, or "".
func RemedyOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Remedy != "" {
			return e.Remedy
		}
		err = e.Cause
	}
	return ""
}
