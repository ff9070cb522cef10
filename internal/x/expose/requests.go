package expose

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Requests counts the requests that a process answers. Safe for concurrent use.
type Requests struct{ took *prometheus.HistogramVec }

// NewRequests counts requests under a name in a registry; nil: nobody sees it.
func NewRequests(reg prometheus.Registerer, name, help string) *Requests {
	return &Requests{took: promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	}, []string{"route", "method", "code"})}
}

// Answered counts a request that has been answered. A mux has seen it: its pattern is the route, so
// that there are as many as there are calls.
func (q *Requests) Answered(r *http.Request, code int, took time.Duration) {
	q.took.WithLabelValues(routeOf(r), methodOf(r), strconv.Itoa(code)).Observe(took.Seconds())
}

// other is the route and the method of what no call has.
const other = "other"

func routeOf(r *http.Request) string {
	if r.Pattern == "" || r.Pattern == "/" {
		return other
	}
	return r.Pattern
}

// methodOf bounds the methods: whoever asks may make up others.
func methodOf(r *http.Request) string {
	known := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions}
	if slices.Contains(known, r.Method) {
		return r.Method
	}
	return other
}
