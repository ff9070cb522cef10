package keyfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyfile"
)

// TestAMissingKeyIsNotReplacedInAHurry: a new key in its place would make all that is sealed look
// lost, so the advice to make one says when not to.
func TestAMissingKeyIsNotReplacedInAHurry(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cut"), make([]byte, 31), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		kind errs.Kind
		says string
	}{"none": {errs.NotFound, "Only where nothing is sealed yet"},
		"cut": {errs.Invalid, "no other key opens that"}} {
		_, err := keyfile.Read(filepath.Join(dir, name))
		if !errs.Is(err, tc.kind) || !strings.Contains(errs.RemedyOf(err), tc.says) {
			t.Errorf("%s: %v; %s", name, err, errs.RemedyOf(err))
		}
	}
}
