package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestRecordOfAnotherReleaseIsRead: one with fields that this release has no more, or not yet, is
// read, and what is known of it counts.
func TestRecordOfAnotherReleaseIsRead(t *testing.T) {
	s, err := openRecords(filepath.Join(t.TempDir(), "machines"))
	if err != nil {
		t.Fatal(err)
	}
	const id = fleet.MachineID("0123456789abcd")
	other := `{"format":1,"later":{"x":1},"assignment":{"machine":"0123456789abcd","generation":7,"attempt":2},` +
		`"life":{"generation":7,"attempt":2,"phase":"healthy"}}`
	if err := os.WriteFile(s.path(id), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.load(id)
	if err != nil || r.Assignment.Generation != 7 || r.Run == nil ||
		r.Run.Phase != fleet.PhaseHealthy {
		t.Errorf("read %+v, %v", r, err)
	}
}
