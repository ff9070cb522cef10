package model

import (
	"errors"
	"os"
	"testing"
)

func TestLine(t *testing.T) {
	models := []LineModel{{}}
	if os.Getenv("SLUICE_MODEL_FULL") != "" {
		models = append(models, LineModel{Reader: 1}, LineModel{Reader: 2})
	}
	for _, m := range models {
		r := Explore[lineState](m, maxStates)
		if r.Err != nil {
			t.Fatalf("%+v: %v", m, r)
		}
		t.Logf("RESULT disk line model: %+v: %d states, no violation", m, r.States)
	}
}

func TestLineBugsAreFound(t *testing.T) {
	for b, name := range map[LineBug]string{LivingOnly: "a destroyed fork's reference collected",
		DestroyIgnoresRefs: "destroyed under a fork",
		DestroyIgnoresPins: "destroyed under a reader",
		DestroyLooksFirst:  "a Destroy looks for forks first",
		LineForkUnchecked:  "a fork doesn't look again", LineOneMark: "one mark",
		SlowFork: "a fork that lasts longer than a grace"} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []LineModel{{Bug: b}, {Bug: b, Reader: 1}} {
				r := Explore[lineState](m, maxStates)
				if errors.Is(r.Err, ErrStuck) || errors.Is(r.Err, ErrTooMany) {
					t.Fatal(r)
				}
				if r.Err != nil {
					t.Logf("RESULT disk line model: %q found after %d states: %v",
						name, r.States, r)
					return
				}
			}
			t.Error("not found")
		})
	}
}
