// Package errhttp is the one table from error kinds to HTTP status codes; docs/protocols/errors.md
// explains it. The body of an answer carries the kind itself: the status is for proxies and people.
package errhttp

import (
	"net/http"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Status returns the status code of an error kind.
func Status(kind errs.Kind) int {
	switch kind {
	case errs.Invalid:
		return http.StatusBadRequest
	case errs.Denied:
		return http.StatusForbidden
	case errs.NotFound:
		return http.StatusNotFound
	case errs.Exists, errs.Conflict, errs.Fenced:
		return http.StatusConflict
	case errs.Unsupported:
		return http.StatusNotImplemented
	case errs.Unavailable:
		return http.StatusServiceUnavailable
	case errs.Exhausted:
		return http.StatusInsufficientStorage
	default: // Corrupt, Internal, and kinds of a newer release
		return http.StatusInternalServerError
	}
}
