package signin

import (
	"slices"
	"testing"
	"time"
)

// FuzzIDToken: whatever a stranger sends is refused or is for this fleet, and nothing breaks.
func FuzzIDToken(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln")
	f.Add("eyJhbGciOiJub25lIn0.eyJhdWQiOlsiYSIsMV0sImV4cCI6MWUzMDB9.")
	f.Add("..")
	cfg, now := Config{Issuer: "https://a", ClientID: "x"}, time.Unix(1<<30, 0)
	f.Fuzz(func(t *testing.T, raw string) {
		h, c, err := parse(raw)
		if err != nil || h.check() != nil || c.check(cfg, now) != nil {
			return
		}
		if c.Issuer != cfg.Issuer || !slices.Contains(c.Audience, cfg.ClientID) ||
			!c.Expiry.time().After(now) || !slices.Contains(algorithms(), h.Algorithm) {
			t.Errorf("%q counts: %+v %+v", raw, h, c)
		}
	})
}

// FuzzRoles: a text is refused, or each of its lines names somebody and grants or denies something.
func FuzzRoles(f *testing.F) {
	f.Add("group a read@b/c use@/d\ndeny user \"e f\"\n# x")
	f.Add("group \"\\xff\" admin")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRoles(text)
		if err != nil {
			return
		}
		for _, one := range r.rules {
			if one.name == "" || one.deny != (len(one.grants) == 0) {
				t.Errorf("%q: %+v", text, one)
			}
		}
	})
}
