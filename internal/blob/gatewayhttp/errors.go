package gatewayhttp

import (
	"encoding/json"
	"net/http"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ErrorBody is an error on the wire.
type ErrorBody struct {
	Kind    errs.Kind `json:"kind"`
	Message string    `json:"message"`
	Remedy  string    `json:"remedy,omitempty"`
}

// Err returns the error that the document stands for.
func (b *ErrorBody) Err() error {
	return &errs.Error{Kind: b.Kind, Message: b.Message, Remedy: b.Remedy}
}

func errorBody(err error) *ErrorBody {
	return &ErrorBody{Kind: errs.KindOf(err), Message: err.Error(), Remedy: errs.RemedyOf(err)}
}

func writeError(w http.ResponseWriter, err error) {
	body := errorBody(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(body.Kind))
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}

func statusOf(kind errs.Kind) int {
	switch kind {
	case errs.Invalid:
		return http.StatusBadRequest
	case errs.NotFound:
		return http.StatusNotFound
	case errs.Conflict, errs.Exists:
		return http.StatusPreconditionFailed
	case errs.Fenced:
		return http.StatusConflict
	case errs.Denied:
		return http.StatusForbidden
	case errs.Unavailable:
		return http.StatusServiceUnavailable
	case errs.Exhausted:
		return http.StatusInsufficientStorage
	case errs.Unsupported:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}

// KindOfStatus is the kind of an answer that has a status but no error document, as one from a proxy.
func KindOfStatus(status int) errs.Kind {
	switch {
	case status == http.StatusNotFound:
		return errs.NotFound
	case status == http.StatusPreconditionFailed:
		return errs.Conflict
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return errs.Denied
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return errs.Unavailable
	default:
		return errs.Invalid
	}
}
