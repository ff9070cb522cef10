package expose

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// NewRegistry returns the registry of one process, with what every process tells of itself: its
// build, its memory and processor, and the Go runtime. Role is server or worker.
func NewRegistry(role, version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"role": role, "version": version,
			"go_version": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// Handler serves the registry in the format that Prometheus reads. What fails to be collected is
// left out and logged; the rest is served.
func Handler(reg *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
}

// maxScrapes at a time; a scrape costs, and nobody needs more.
const maxScrapes = 4

// Alive answers /healthz: the process lives, whatever it can do.
func Alive(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, State{OK: true}) }

// State is the answer of /healthz and /readyz.
type State struct {
	OK bool `json:"ok"`
	// Reasons say why not, without names and addresses: anybody may read them.
	Reasons []string `json:"reasons,omitempty"`
}

// Ready answers /readyz: 200 while the process can do its work, else 503 with each reason.
func Ready(lacks func(*http.Request) []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if reasons := lacks(r); len(reasons) > 0 {
			answer(w, http.StatusServiceUnavailable, State{Reasons: reasons})
			return
		}
		answer(w, http.StatusOK, State{OK: true})
	}
}

// RegisterReady tells scrapes what /readyz tells.
func RegisterReady(reg prometheus.Registerer, lacks func() []string) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ready", Help: "1 while the process can do its work, as /readyz says; else 0.",
	}, func() float64 {
		if len(lacks()) > 0 {
			return 0
		}
		return 1
	}))
}

func answer(w http.ResponseWriter, status int, s State) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(s) // who is gone needs no answer
}

// Result is the value of a label named result: ok, or the kind of the error.
func Result(err error) string {
	if err == nil {
		return "ok"
	}
	return string(errs.KindOf(err))
}
