package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// BenchmarkCall is what a call waits for, which is written down before it begins and before its
// answer: alone, and with others that share the flushes.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l, err := audit.Open(audit.Config{Dir: b.TempDir(), Fleet: "f1"},
				audit.Deps{Store: memblob.New(), State: memstate.New(memstate.Config{}),
					Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var running, calls errgroup.Group
			running.Go(func() error { return l.Run(ctx) })
			var n atomic.Int64
			for range callers {
				calls.Go(func() error {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						id := fmt.Sprint("r", i)
						if err := l.Begin(entry(id)); err != nil {
							return err
						}
						if err := l.End(entry(id)); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := calls.Wait(); err != nil {
				b.Error(err)
			}
			cancel()
			if err := running.Wait(); err != nil {
				b.Error(err)
			}
		})
	}
}
