package model

import (
	"errors"
	"testing"
)

func TestPool(t *testing.T) {
	for _, m := range []PoolModel{
		{Fork: true, Checkpoint: true, OneMark: true},
		{Reader: true, Checkpoint: true, OneMark: true},
		{Fork: true, Checkpoint: true},
		{Reader: true, Checkpoint: true},
		{Naming: true, Fork: true},
		{Naming: true, Reader: true},
		{Naming: true, Restores: 2},
		{Restores: 3},
		{Restores: 1, Fork: true},
		{Restores: 1, Reader: true},
	} {
		r := Explore[poolState](m, maxStates)
		if r.Err != nil {
			t.Fatalf("%+v: %v", m, r)
		}
		t.Logf("RESULT disk pool model: %+v: %d states, no violation", m, r.States)
	}
}

func TestPoolBugsAreFound(t *testing.T) {
	for b, name := range map[PoolBug]string{ForksIgnored: "a fork's segment collected",
		RefsFirst:     "references read before checkpoints",
		ForkUnchecked: "a fork doesn't look again", PinLate: "pinned after reading",
		PinsIgnored: "pins ignored", RestoreUnpinned: "a restore without a pin",
		CheckpointUnpinned: "a checkpoint doesn't look again",
		NamingUnswapped:    "named without the swap",
		NamingUnlooked:     "named without another look"} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []PoolModel{{Fork: true}, {Reader: true}, {Restores: 1},
				{Checkpoint: true}, {Naming: true}, {Fork: true, OneMark: true}} {
				m.Bug = b
				r := Explore[poolState](m, maxStates)
				if errors.Is(r.Err, ErrStuck) || errors.Is(r.Err, ErrTooMany) {
					t.Fatal(r)
				}
				if r.Err != nil {
					t.Logf("RESULT disk pool model: %q found after %d states: %v",
						name, r.States, r)
					return
				}
			}
			t.Error("not found")
		})
	}
}

// TestPoolNeedsBothReadings shows that neither two marks alone nor a second look at the head alone
// covers restores that move a version from a checkpoint to the head and back.
func TestPoolNeedsBothReadings(t *testing.T) {
	for _, m := range []PoolModel{{Restores: 3, HeadOnce: true}, {Restores: 3, OneMark: true}} {
		r := Explore[poolState](m, maxStates)
		if r.Err == nil || errors.Is(r.Err, ErrStuck) || errors.Is(r.Err, ErrTooMany) {
			t.Errorf("%+v: %v", m, r)
		}
		t.Logf("RESULT disk pool model: %+v: found after %d states: %v", m, r.States, r)
	}
}
