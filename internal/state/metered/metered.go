// Package metered tells metrics of a state: how long commits take, what becomes of them, and how
// full it is.
package metered

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/expose"
)

// New returns the store with its commits measured.
func New(s state.Store, reg prometheus.Registerer) state.Store {
	f := promauto.With(reg)
	return &store{
		Store: s,
		took: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_state_commit_duration_seconds",
			Help:    "Time of one commit to the state, until it is synced.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		results: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_state_commits_total",
			Help: "Commits to the state, by result: ok, conflict (a lost race), or what failed.",
		}, []string{"result"}),
	}
}

type store struct {
	state.Store
	took    prometheus.Histogram
	results *prometheus.CounterVec
}

// Commit implements state.Store.
func (s *store) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	began := time.Now()
	rev, err := s.Store.Commit(ctx, txn)
	s.took.Observe(time.Since(began).Seconds())
	s.results.WithLabelValues(expose.Result(err)).Inc()
	return rev, err
}

// Size is how full a state is.
type Size struct {
	Bytes int64 // of its file
	InUse int64 // of that, what isn't free for reuse
	Quota int64 // of the file; beyond it nothing is written
}

// RegisterSize has scrapes ask how full the state is.
func RegisterSize(reg prometheus.Registerer, size func() Size) {
	for _, g := range []struct {
		name, help string
		of         func(Size) int64
	}{
		{"sluice_state_size_bytes", "Size of the state's database file.",
			func(s Size) int64 { return s.Bytes }},
		{"sluice_state_in_use_bytes",
			"Part of the state's database file that isn't free for reuse.",
			func(s Size) int64 { return s.InUse }},
		{"sluice_state_quota_bytes",
			"Size of the state's database file beyond which nothing is written.",
			func(s Size) int64 { return s.Quota }},
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help},
			func() float64 { return float64(g.of(size())) }))
	}
}
