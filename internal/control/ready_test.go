package control_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// endedMoves keeps what a control plane tells of moves that it ended.
type endedMoves struct {
	mu    sync.Mutex
	moves []fleet.Move
}

func (e *endedMoves) add(mv fleet.Move) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.moves = append(e.moves, mv)
}

func (e *endedMoves) take() []fleet.Move {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.moves
	e.moves = nil
	return taken
}

// TestLacks: a server is ready once it has read its records, while its state answers.
func TestLacks(t *testing.T) {
	store := memstate.New(memstate.Config{})
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool"}, control.Deps{
		Store: store, Disks: &memDisks{docs: map[string][]byte{}}, Images: memImages{},
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lacks := func(what string, want ...string) {
		t.Helper()
		if got := c.Lacks(t.Context()); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	lacks("new", "it has not read its records yet")
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	lacks("loaded")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	lacks("without state", "its state doesn't answer")
}
