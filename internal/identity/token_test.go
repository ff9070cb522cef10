package identity_test

import (
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestMistypedTokensAreToldAsSuch, before they go anywhere: with any one character changed, missing
// or doubled.
func TestMistypedTokensAreToldAsSuch(t *testing.T) {
	text := identity.NewToken("0123456789abcdef").String()
	if _, err := identity.ParseToken(" " + text + "\n"); err != nil {
		t.Fatal(err)
	}
	for i := range len(text) {
		other := "a"
		if text[i] == 'a' {
			other = "b"
		}
		for how, wrong := range map[string]string{"changed": text[:i] + other + text[i+1:],
			"missing": text[:i] + text[i+1:], "doubled": text[:i+1] + text[i:]} {
			if _, err := identity.ParseToken(wrong); !errs.Is(err, errs.Invalid) ||
				errs.RemedyOf(err) == "" {
				t.Errorf("character %d %s: %v", i, how, err)
			}
		}
	}
}

// TestTokensOfReleasesWithoutAChecksum are taken: a worker may have one from before an upgrade.
func TestTokensOfReleasesWithoutAChecksum(t *testing.T) {
	old := "sluice-join.aaaaaaaa." + strings.Repeat("b", 32) + ".0123"
	if got, err := identity.ParseToken(old); err != nil || got.String() != old {
		t.Errorf("%v, %v", got, err)
	}
}
