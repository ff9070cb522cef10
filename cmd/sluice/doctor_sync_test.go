package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/platform/ownsync"
)

// TestDoctorKnowsWhereSyncIsTaken: where somebody intercepts system calls already, as a container's
// manager may, no machine can start; doctor says so before.
func TestDoctorKnowsWhereSyncIsTaken(t *testing.T) {
	if f := doctorOnSync(t); f.Status != statusOK {
		t.Errorf("here: %+v", f)
	}
	err := ownsync.Filter(func(*os.File) error {
		if f := doctorOnSync(t); f.Status != statusBroken ||
			!strings.Contains(f.Remedy, "intercepts system calls") {
			t.Errorf("where it is taken: %+v", f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// doctorOnSync runs the command as a child of the calling thread. What else it finds doesn't
// matter.
func doctorOnSync(t *testing.T) finding {
	cmd := exec.Command(os.Args[0], "doctor", "--json")
	cmd.Env = append(os.Environ(), "SLUICE_DIR="+t.TempDir())
	out, _ := cmd.Output()
	var all []finding
	if err := json.Unmarshal(out, &all); err != nil {
		t.Errorf("doctor: %v: %s", err, out)
	}
	at := slices.IndexFunc(all, func(f finding) bool { return strings.HasPrefix(f.Check, "sync") })
	if at < 0 {
		return finding{}
	}
	return all[at]
}
