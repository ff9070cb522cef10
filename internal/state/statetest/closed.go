package statetest

import (
	"context"
	"errors"
	"io"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// everyCall makes each call of the interface once, and returns their errors by name.
func everyCall(ctx context.Context, s state.Store) map[string]error {
	calls := map[string]error{}
	_, calls["get"] = s.Get(ctx, "a")
	_, _, calls["list"] = s.List(ctx, "")
	_, calls["commit"] = s.Commit(ctx, state.Txn{Then: []state.Op{{Key: "a"}}})
	calls["watch"] = s.Watch(ctx, "", 1, func(state.Batch) bool { return true })
	calls["snapshot"] = s.Snapshot(ctx, io.Discard)
	return calls
}

func testCancelledContext(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(timeout(t))
	cancel()
	for name, err := range everyCall(ctx, h.Store) {
		wantKind(t, name+" with a cancelled context", err, errs.Unavailable)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the cancellation isn't in the chain of %v", name, err)
		}
	}
	wantAbsent(t, h.Store, "a")
}

// testClosed closes the store under a running watch.
func testClosed(t *testing.T, h Harness) {
	start := put(t, h.Store, "a", "1")
	running := make(chan struct{}, 1)
	var group errgroup.Group
	group.Go(func() error {
		return h.Store.Watch(timeout(t), "", start, func(state.Batch) bool {
			running <- struct{}{}
			return true
		})
	})
	put(t, h.Store, "a", "2")
	<-running
	if err := h.Store.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "watch over the close", group.Wait(), errs.Unavailable)
	for name, err := range everyCall(timeout(t), h.Store) {
		wantKind(t, name+" after close", err, errs.Unavailable)
	}
	if err := h.Store.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}
