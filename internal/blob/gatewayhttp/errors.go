package gatewayhttp

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// ErrorBody is an error on the wire.
type ErrorBody struct {
	errs.Wire
	// Throttled: the store asks for fewer requests; RetryAfterMS is how long it wants to be left
	// alone, if it says so.
	Throttled    bool  `json:"throttled,omitempty"`
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

// Err returns the error that the document stands for.
func (b *ErrorBody) Err() error {
	e := b.Wire.Err()
	if b.Throttled {
		return errs.Wrap(b.Kind, &blob.Throttled{
			After: time.Duration(b.RetryAfterMS) * time.Millisecond, Cause: e}, "store gateway").
			WithRemedy("%s", b.Remedy)
	}
	return e
}

func errorBody(err error) *ErrorBody {
	b := &ErrorBody{Wire: errs.ToWire(err)}
	if after, ok := blob.ThrottledFor(err); ok {
		b.Throttled, b.RetryAfterMS = true, after.Milliseconds()
	}
	return b
}

func writeError(w http.ResponseWriter, err error) {
	body := errorBody(err)
	if body.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((body.RetryAfterMS+999)/1000, 10))
	}
	jsonhttp.Write(w, statusOf(body.Kind), body)
}

// statusOf is errhttp's table, but for a lost condition: HTTP has a status for those.
func statusOf(kind errs.Kind) int {
	if kind == errs.Conflict || kind == errs.Exists {
		return http.StatusPreconditionFailed
	}
	return errhttp.Status(kind)
}
