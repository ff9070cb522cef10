package model

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

const maxStates = 6_000_000

// TestLog visits every state of the log model.
func TestLog(t *testing.T) {
	models := []LogModel{{Writers: 2, Objects: 2, Checkpoints: 1, Collect: true},
		{Writers: 3, Objects: 1}}
	if os.Getenv("SLUICE_MODEL_FULL") != "" { // minutes, and gigabytes
		models = append(models, LogModel{Writers: 2, Objects: 2, Checkpoints: 2, Collect: true},
			LogModel{Writers: 3, Objects: 2})
	}
	for _, m := range models {
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) {
			r := Explore[logState](m, maxStates)
			if r.Err != nil {
				t.Fatal(r)
			}
			t.Logf(
				"RESULT disk log model: %d writers, %d log objects each, %d map checkpoints: %d states, no violation", m.Writers, m.Objects, m.Checkpoints, r.States)
		})
	}
}

// TestLogBugsAreFound breaks one rule at a time.
func TestLogBugsAreFound(t *testing.T) {
	for b, name := range map[LogBug]string{NoFence: "no fence", FenceCollected: "fence collected",
		NoNonce:  "no nonce check",
		EarlyAck: "acknowledged before the PUT", UnorderedAck: "acknowledged out of order",
		BlindSwap:     "head put without a condition",
		FenceAnywhere: "first hole left open", CleanOpen: "open head taken for closed"} {
		t.Run(name, func(t *testing.T) {
			r := Explore[logState](LogModel{Writers: 2, Objects: 2, Checkpoints: 1, Collect: true,
				Bug: b}, maxStates)
			if r.Err == nil || errors.Is(r.Err, ErrStuck) || errors.Is(r.Err, ErrTooMany) {
				t.Fatalf("not found in %d states: %v", r.States, r)
			}
			t.Logf("RESULT disk log model: %q found after %d states: %v", name, r.States, r)
		})
	}
}
