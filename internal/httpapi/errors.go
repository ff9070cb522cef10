package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
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
	var names *fleet.NamesWorkers
	if rec, ok := w.(*recorder); ok && !rec.seesFleet && errors.As(err, &names) {
		err = names.Else
	}
	body := api.ErrorBody{Error: toAPIError(err)}
	body.Error.RequestID = w.Header().Get(headerRequestID)
	if rec, ok := w.(*recorder); ok {
		rec.code = body.Error.Code
	}
	jsonhttp.Write(w, status, body)
}
