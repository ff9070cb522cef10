package keycommand_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/keycommand"
)

func TestRun(t *testing.T) {
	out, said, err := keycommand.Run(t.Context(), "cat; echo why >&2; printf '%s|'", []byte("in "),
		"a b", "c")
	if string(out) != "in a b|c|" || said != "why" || err != nil {
		t.Errorf("%q, %q, %v", out, said, err)
	}
	if _, said, err := keycommand.Run(t.Context(), "echo no >&2; exit 3", nil); err == nil ||
		keycommand.IsLate(err) || said != "no" {
		t.Errorf("%q, %v", said, err)
	}
	_, said, err = keycommand.Run(t.Context(), "head -c 9999 /dev/zero | tr '\\0' x >&2", nil)
	if err != nil || len(said) > 512 {
		t.Errorf("%d bytes of complaints, %v", len(said), err)
	}
}

// TestLateCommandsAreEnded, with what they have started, which has the pipes open.
func TestLateCommandsAreEnded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, said, err := keycommand.Run(ctx, "echo begun >&2; sleep 1000 | cat", nil)
	if !keycommand.IsLate(err) || !strings.Contains(said, "begun") {
		t.Errorf("%q, %v", said, err)
	}
}
