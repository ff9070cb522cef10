package etcdstate_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
)

// BenchmarkCommit is one fsynced commit after another on an embedded member.
func BenchmarkCommit(b *testing.B) {
	e, err := etcdstate.Start(b.Context(), etcdstate.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	txn := state.Txn{Then: []state.Op{{Key: "a", Value: make([]byte, 512)}}}
	for b.Loop() {
		if _, err := e.Store().Commit(b.Context(), txn); err != nil {
			b.Fatal(err)
		}
	}
}
