package tracing

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// sizes notes how many spans came with each batch.
type sizes []int

func (s *sizes) ExportSpans(_ context.Context, batch []sdk.ReadOnlySpan) error {
	*s = append(*s, len(batch))
	return nil
}

func (*sizes) Shutdown(context.Context) error { return nil }

// TestAFullBatchIsNotWaitedWith: many moves at a time fill the queue no faster than a collector
// that is quick takes from it, and a few spans wait for those that come with them.
func TestAFullBatchIsNotWaitedWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got sizes
		q := newQueue(&got, Config{Metrics: prometheus.NewRegistry(),
			Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return q.run(ctx) })
		for range 3*batchSize + 1 {
			q.OnEnd(nil)
		}
		synctest.Wait()
		if len(got) != 3 {
			t.Errorf("%d full batches were exported at once, want 3", len(got))
		}
		time.Sleep(batchWait / 2)
		q.OnEnd(nil)
		time.Sleep(batchWait)
		synctest.Wait()
		if len(got) != 4 || got[3] != 2 {
			t.Errorf("the last spans were exported in batches of %v, want 2 at the end", got)
		}
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}
