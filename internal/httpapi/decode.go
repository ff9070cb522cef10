package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxBody       = 1 << 20  // of a request by people and their programs
	maxReportBody = 32 << 20 // of a worker's report
)

// strictness says what happens to fields that this release doesn't know.
type strictness bool

const (
	strict  strictness = true  // refuse them: a misspelt field must not be ignored
	lenient strictness = false // ignore them: the sender may be of a newer release
)

// decode reads a JSON body of at most limit bytes into v. An empty body leaves v as it is.
func decode(w http.ResponseWriter, r *http.Request, limit int64, mode strictness, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	if mode == strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return bodyError(err, limit)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "the request's body holds more than one JSON document")
	}
	return nil
}

func bodyError(err error, limit int64) error {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return errs.New(errs.Invalid, "the request's body is larger than %d bytes", limit)
	}
	return errs.Wrap(errs.Invalid, err, "the request's body is not what this call takes").
		WithRemedy("GET /v1/openapi.yaml describes every call and its fields")
}
