package httpapi

import (
	"errors"
	"net/http"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

const (
	maxBody       = jsonhttp.MaxBody // of a request by people and their programs
	maxReportBody = 32 << 20         // of a worker's report
)

// decode is jsonhttp.Decode for those who can look up what a call takes.
func decode(w http.ResponseWriter, r *http.Request, limit int64, mode jsonhttp.Strictness,
	v any) error {
	err := jsonhttp.Decode(w, r, limit, mode, v)
	var e *errs.Error
	if errors.As(err, &e) {
		return e.WithRemedy("GET /v1/openapi.yaml describes every call and its fields")
	}
	return err
}
