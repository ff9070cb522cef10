package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// onceDraining changes the only drain as soon as there is one.
func (c *cli) onceDraining(change func(d *fleet.DrainView)) {
	go func() {
		for {
			done := false
			changed := c.fleet.Changed()
			c.fleet.Update(func(tx *httpapitest.Tx) {
				for _, d := range tx.Drains {
					change(d)
					done = true
				}
			})
			if done {
				return
			}
			select {
			case <-changed:
			case <-c.t.Context().Done():
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
}

func finishDrain(d *fleet.DrainView) {
	at := time.Date(2026, 11, 22, 12, 0, 1, 0, time.UTC)
	d.Drain.State, d.Drain.Total, d.Drain.Moved, d.Drain.FinishedAt = fleet.DrainDone, 1, 1,
		at.Add(time.Second)
	d.Moves = []fleet.MoveView{{MachineName: "web-1", Move: fleet.Move{ID: "m",
		Machine: "01000000000001", From: "w1", To: "w2", Step: fleet.StepDone, PauseMS: 99.6,
		Steps: []fleet.StepRecord{{Step: fleet.StepPlanned, At: at}, {Step: fleet.StepReserved,
			At: at, Note: "on w2"}, {Step: fleet.StepDone, At: at.Add(time.Second)}}}}}
}

func TestDrainShowsStepsAndResult(t *testing.T) {
	c := newCLI(t)
	c.onceDraining(finishDrain)
	stdout, stderr, code := c.run("worker", "drain", "w1")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	golden(t, "drain-result.txt", stdout)
	golden(t, "drain-progress.txt", stderr)
}

func TestDrainJSONIsTheDrain(t *testing.T) {
	c := newCLI(t)
	c.onceDraining(finishDrain)
	stdout, _, code := c.run("worker", "drain", "w1", "--json")
	var d api.Drain
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 0 || d.State != "drained" ||
		d.Moves[0].PauseMS != 99.6 {
		t.Fatalf("exit %d, %v: %s", code, err, stdout)
	}
	stdout, _, code = c.run("drain", "watch", d.ID, "--json")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != 0 || len(lines) != 1 ||
		json.Unmarshal([]byte(lines[0]), &d) != nil {
		t.Fatalf("exit %d: %s", code, stdout)
	}
}

// TestDrainThatStaysBlocked: the command ends with what blocks, and the drain goes on.
func TestDrainThatStaysBlocked(t *testing.T) {
	c := newCLI(t)
	c.onceDraining(func(d *fleet.DrainView) {
		d.Drain.State, d.Drain.Total = fleet.DrainBlocked, 1
		d.Drain.Blockers = []fleet.Blocker{{Code: "no-capacity", Object: "machine/x",
			Detail: "no room", Remedy: "add a worker"}}
	})
	stdout, stderr, code := c.run("worker", "drain", "w1")
	if code != exitBlocked || !strings.Contains(stdout,
		"blocked: machine/x: no room (no-capacity") ||
		!strings.Contains(stdout, "try: add a worker") ||
		strings.Contains(stdout, "safe to power off") ||
		!strings.Contains(stderr, "goes on by itself") {
		t.Fatalf("exit %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestDrainCancelledIsNoSuccess(t *testing.T) {
	c := newCLI(t)
	c.onceDraining(func(d *fleet.DrainView) { d.Drain.State = fleet.DrainCancelled })
	if stdout, _, code := c.run("worker", "drain", "w1", "--wait"); code != exitBlocked ||
		strings.Contains(stdout, "safe") {
		t.Fatalf("exit %d: %s", code, stdout)
	}
}

func TestDrainTimeoutAndInterrupt(t *testing.T) {
	c := newCLI(t)
	_, stderr, code := c.run("worker", "drain", "w1", "--timeout", "2s")
	if code != exitBlocked || !strings.Contains(stderr, "not ended in time") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(2*time.Second, cancel)
	_, stderr, code = c.runContext(ctx, "drain", "watch", "01DRAIN0000000000000000001")
	if code != exitInterrupted || !strings.Contains(stderr, "goes on by itself") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
}

func TestMigrateWaitsAndTellsUndone(t *testing.T) {
	c := story(t)
	for _, x := range []struct {
		step fleet.Step
		code int
		text string
	}{{fleet.StepDone, 0, "moved"}, {fleet.StepUndone, exitBlocked, "undone: on w1"}} {
		go func() {
			for done := false; !done; time.Sleep(time.Millisecond) {
				c.fleet.Update(func(tx *httpapitest.Tx) {
					for _, m := range tx.Moves {
						if m.Move.Step == fleet.StepPlanned {
							m.Move.Step, done = x.step, true
							tx.Machines[m.Move.Machine].Machine.Owner = ""
						}
					}
				})
			}
		}()
		stdout, _, code := c.run("machine", "migrate", "web-1", "--to", "w1")
		if code != x.code || !strings.Contains(stdout, x.text) {
			t.Errorf("exit %d: %s", code, stdout)
		}
	}
}
