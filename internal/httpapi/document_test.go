package httpapi_test

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/sluice-platform/sluice/api"
)

// documented fails the test for every answer of the API that isn't as its document says, and for
// each request that the API takes and the document doesn't have.
func documented(t *testing.T, next http.Handler) http.Handler {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(asked))
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		if err := compare(router, r, asked, answer); err != nil {
			t.Errorf("%s %s → %d: %v", r.Method, r.URL.Path, answer.status, err)
		}
	})
}

// compare returns how a request and its answer differ from the document.
func compare(router routers.Router, r *http.Request, asked []byte, a *answer) error {
	if strings.Contains(r.URL.Path, "/ports/") {
		return nil // what a program in a machine answers, to every method and path
	}
	route, params, err := router.FindRoute(r)
	if err != nil {
		if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
			return nil
		}
		return err
	}
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(asked))
	if body := route.Operation.RequestBody; body != nil && again.Header.Get("Content-Type") == "" {
		for kind := range body.Value.Content { // the server takes each body for what it has to be
			again.Header.Set("Content-Type", kind)
		}
	}
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
			IncludeResponseStatus: true}}
	if a.status < http.StatusBadRequest { // what is refused may be anything
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			return err
		}
	}
	if kind, _, _ := mime.ParseMediaType(
		a.Header().Get("Content-Type")); kind != "application/json" {
		return nil
	}
	return openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: a.Header(), Options: in.Options,
		Body: io.NopCloser(bytes.NewReader(a.body.Bytes())),
	})
}

// answer keeps what was answered.
type answer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.body.Write(b)
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
