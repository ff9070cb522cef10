package expose_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
)

func get(t *testing.T, h http.Handler) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Code, w.Body.String()
}

// TestReadyIsTheSameForProbesAndScrapes: what /readyz says, sluice_ready says too.
func TestReadyIsTheSameForProbesAndScrapes(t *testing.T) {
	reg := expose.NewRegistry("server", "v1")
	var lacks []string
	expose.RegisterReady(reg, func() []string { return lacks })
	ready := expose.Ready(func(*http.Request) []string { return lacks })
	metrics := expose.Handler(reg, slog.New(slog.DiscardHandler))
	for _, lacks = range [][]string{nil, {"one thing", "another"}} {
		status, body := get(t, ready)
		var s expose.State
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		want, line := 200, "\nsluice_ready 1\n"
		if len(lacks) > 0 {
			want, line = 503, "\nsluice_ready 0\n"
		}
		if status != want || s.OK != (want == 200) || !slices.Equal(s.Reasons, lacks) {
			t.Errorf("lacking %q: %d %s", lacks, status, body)
		}
		if _, text := get(t, metrics); !strings.Contains(text, line) ||
			!strings.Contains(text, `role="server",version="v1"} 1`) {
			t.Errorf("lacking %q, without %q:\n%s", lacks, line, text)
		}
	}
	if status, body := get(t, http.HandlerFunc(expose.Alive)); status != 200 {
		t.Errorf("alive: %d %s", status, body)
	}
}

// TestRegistriesAreApart: two processes' worth of metrics can be in one process, as tests have
// them.
func TestRegistriesAreApart(t *testing.T) {
	a, b := expose.NewRegistry("server", "v1"), expose.NewRegistry("worker", "v1")
	for _, reg := range []*prometheus.Registry{a, b} {
		expose.RegisterReady(reg, func() []string { return nil })
		if _, err := reg.Gather(); err != nil {
			t.Error(err)
		}
	}
}

func TestResult(t *testing.T) {
	if got := expose.Result(nil); got != "ok" {
		t.Errorf("no error is %q", got)
	}
	if got := expose.Result(errs.New(errs.Denied, "no")); got != "denied" {
		t.Errorf("a refusal is %q", got)
	}
}
