package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

type noDisks struct{}

func (noDisks) ForkImage(context.Context, fleet.Image, string, int64) error { return nil }
func (noDisks) WriteOwner(context.Context, string, []byte) error            { return nil }
func (noDisks) Destroy(context.Context, string) error                       { return nil }
func (noDisks) Build(context.Context, fleet.ImageName, int64, io.Reader) (fleet.Image, error) {
	return fleet.Image{}, nil
}

func TestHistoryIsBounded(t *testing.T) {
	store := memstate.New(memstate.Config{})
	c, err := New(Config{}, Deps{Store: store, Disks: noDisks{}, Images: noDisks{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, val any) {
		tx := c.begin()
		tx.put(key, 0, val)
		if err := tx.commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	going := fleet.Drain{ID: "000", State: fleet.DrainRunning}
	put(keyDrain(going.ID), going)
	for i := range keepDrains + 60 {
		id := fleet.DrainID(fmt.Sprintf("d%05d", i))
		put(keyDrain(id), fleet.Drain{ID: id, State: fleet.DrainDone})
	}
	for i := range keepMoves + 120 {
		mv := fleet.Move{ID: fleet.MoveID(fmt.Sprintf("m%05d", i)), Step: fleet.StepDone}
		if i < 10 {
			mv.Drain = going.ID
		}
		put(keyMove(mv.ID), mv)
	}
	c.loaded.Store(true)
	for range 10 {
		if err := c.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if moves, drains := c.cache.sizes(); moves != keepMoves || drains != keepDrains {
		t.Fatalf("%d moves and %d drains are kept", moves, drains)
	}
	if _, ok := c.cache.move("m00000"); !ok {
		t.Error("a move of a drain that goes on is forgotten")
	}
	if _, ok := c.cache.move("m00010"); ok {
		t.Error("an old move of no drain is kept")
	}
	if _, ok := c.cache.move(fleet.MoveID(fmt.Sprintf("m%05d", keepMoves+119))); !ok {
		t.Error("the newest move is forgotten")
	}
}
