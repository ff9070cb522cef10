package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// toAPIError splits an error into what went wrong and why.
func toAPIError(err error) api.Error {
	out := api.Error{Code: string(errs.KindOf(err)), Message: err.Error(),
		Remedy: errs.RemedyOf(err)}
	var e *errs.Error
	if errors.As(err, &e) && e.Cause != nil {
		cause := e.Cause.Error()
		if message := strings.TrimSuffix(out.Message, ": "+cause); message != out.Message {
			out.Message, out.Cause = message, cause
		}
	}
	return out
}

// writeError answers with an error in the one form.
func writeError(w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	if kind == errs.Unavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeErrorStatus(w, errhttp.Status(kind), err)
}

func writeErrorStatus(w http.ResponseWriter, status int, err error) {
	body := api.ErrorBody{Error: toAPIError(err)}
	body.Error.RequestID = w.Header().Get(headerRequestID)
	writeJSON(w, status, body)
}

// writeJSON answers with a JSON document. A failed write means that the client has gone, which the
// access log shows as a short answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		data = []byte(`{"error":{"code":"internal","message":"the answer can't be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}
