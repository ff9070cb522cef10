package attack

import (
	"testing"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/attack/attempts"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// Foothold is a place where an attacker's code runs.
type Foothold struct {
	Name string // as attempts.Of knows it
	// Run starts a program there that every image of fleettest has, and returns what it prints.
	Run func(command ...string) string
}

// UserCode is root in a machine.
func UserCode(f *fleettest.Fleet, m api.Machine) Foothold {
	return Foothold{Name: attempts.UserCode, Run: func(command ...string) string {
		return f.Run(m.ID, command...)
	}}
}

// MustBeRefused makes all attempts of a foothold, and fails the test for each that gets on.
func (h Foothold) MustBeRefused(t *testing.T) {
	t.Helper()
	outcomes, err := attempts.Read(h.Run("attack", h.Name), attempts.Of(h.Name))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range attempts.Unrefused(outcomes) {
		t.Errorf("%s: %v", h.Name, o)
	}
	t.Logf("%s: %d attempts", h.Name, len(outcomes))
}
