package metrics_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
)

// BenchmarkRequest is what metrics add to each request of a VM to the store.
func BenchmarkRequest(b *testing.B) {
	m := metrics.New(prometheus.NewRegistry())
	d := decorate.Done{Op: decorate.OpPutIfAbsent, Took: 20 * time.Millisecond, In: 4096}
	for b.Loop() {
		m.Request(d)
	}
}
