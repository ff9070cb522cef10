package gatewayhttp

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ErrorBody is an error on the wire.
type ErrorBody struct {
	Kind    errs.Kind `json:"kind"`
	Message string    `json:"message"`
	Remedy  string    `json:"remedy,omitempty"`
	// Throttled: the store asks for fewer requests; RetryAfterMS is how long it wants to be left
	// alone, if it says so.
	Throttled    bool  `json:"throttled,omitempty"`
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

// Err returns the error that the document stands for.
func (b *ErrorBody) Err() error {
	e := &errs.Error{Kind: b.Kind, Message: b.Message, Remedy: b.Remedy}
	if b.Throttled {
		return errs.Wrap(b.Kind, &blob.Throttled{
			After: time.Duration(b.RetryAfterMS) * time.Millisecond, Cause: e}, "store gateway").
			WithRemedy("%s", b.Remedy)
	}
	return e
}

func errorBody(err error) *ErrorBody {
	b := &ErrorBody{Kind: errs.KindOf(err), Message: err.Error(), Remedy: errs.RemedyOf(err)}
	if after, ok := blob.ThrottledFor(err); ok {
		b.Throttled, b.RetryAfterMS = true, after.Milliseconds()
	}
	return b
}

func writeError(w http.ResponseWriter, err error) {
	body := errorBody(err)
	w.Header().Set("Content-Type", "application/json")
	if body.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((body.RetryAfterMS+999)/1000, 10))
	}
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
