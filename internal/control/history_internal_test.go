package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

type noDisks struct{}

func (noDisks) ForkImage(context.Context, fleet.Image, string, int64, disk.KEK) error { return nil }
func (noDisks) WriteOwner(context.Context, string, []byte) error                      { return nil }
func (noDisks) Destroy(context.Context, string) error                                 { return nil }
func (noDisks) Rekey(context.Context, string, disk.KEK, disk.KEK) error               { return nil }
func (noDisks) Build(context.Context, fleet.ImageName, int64, io.Reader) (fleet.Image, error) {
	return fleet.Image{}, nil
}

func TestHistoryIsBounded(t *testing.T) {
	store := memstate.New(memstate.Config{})
	c, err := New(Config{},
		Deps{Store: store, Disks: noDisks{}, Images: noDisks{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(set func(*records.Txn)) {
		tx := c.records.Begin()
		set(tx)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	putDrain := func(d fleet.Drain) {
		put(func(tx *records.Txn) { records.Set(tx, c.records.Drains.New(d.ID), d) })
	}
	going := fleet.Drain{ID: "000", State: fleet.DrainRunning}
	putDrain(going)
	for i := range keepDrains + 60 {
		id := fleet.DrainID(fmt.Sprintf("d%05d", i))
		putDrain(fleet.Drain{ID: id, State: fleet.DrainDone})
	}
	for i := range keepMoves + 120 {
		mv := fleet.Move{ID: fleet.MoveID(fmt.Sprintf("m%05d", i)), Step: fleet.StepDone}
		if i < 10 {
			mv.Drain = going.ID
		}
		put(func(tx *records.Txn) { records.Set(tx, c.records.Moves.New(mv.ID), mv) })
	}
	for range 10 {
		if err := c.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if moves, drains := c.records.Moves.Len(), c.records.Drains.Len(); moves != keepMoves ||
		drains != keepDrains {
		t.Fatalf("%d moves and %d drains are kept", moves, drains)
	}
	if _, ok := c.records.Moves.Get("m00000"); !ok {
		t.Error("a move of a drain that goes on is forgotten")
	}
	if _, ok := c.records.Moves.Get("m00010"); ok {
		t.Error("an old move of no drain is kept")
	}
	if _, ok := c.records.Moves.Get(fleet.MoveID(fmt.Sprintf("m%05d", keepMoves+119))); !ok {
		t.Error("the newest move is forgotten")
	}
}
