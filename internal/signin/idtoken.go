package signin

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxIDToken is room for some hundreds of groups.
const maxIDToken = 32 << 10

// skew is by how much the issuer's clock may be ahead of this host's.
const skew = time.Minute

// algorithms are those of public keys: with a shared secret, who can check could sign.
func algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
		string(jose.EdDSA)}
}

// LooksLikeIDToken reports whether a text has the form of signed tokens.
func LooksLikeIDToken(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

type header struct {
	Algorithm string `json:"alg"`
	Key       string `json:"kid"`
	Type      string `json:"typ"`
}

// claims are those that say whether a token counts.
type claims struct {
	Issuer    string  `json:"iss"`
	Subject   string  `json:"sub"`
	Audience  strs    `json:"aud"`
	Party     string  `json:"azp"`
	Expiry    seconds `json:"exp"`
	NotBefore seconds `json:"nbf"`
	IssuedAt  seconds `json:"iat"`

	payload []byte // all of them
}

// strs is a list, or one text.
type strs []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *strs) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*s = strs{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(s))
}

// seconds since 1970; 0: not said.
type seconds float64

func (s seconds) time() time.Time { return time.Unix(int64(s), 0).UTC() }

const maxTime = 1 << 40 // seconds: beyond any date that can be written

func (s seconds) sane() bool {
	return !math.IsNaN(float64(s)) && s >= 0 && s < maxTime
}

// parse takes a token apart, without a look at its signature.
func parse(raw string) (h header, c claims, err error) {
	if len(raw) > maxIDToken {
		return h, c, denied("the ID token has %d bytes, at most %d count", len(raw), maxIDToken).
			WithRemedy("have the issuer name fewer groups in it")
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return h, c, noIDToken()
	}
	for i, into := range []any{&h, &c} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(data, into) != nil {
			return h, c, noIDToken()
		}
		c.payload = data
	}
	return h, c, nil
}

func denied(format string, args ...any) *errs.Error {
	return errs.New(errs.Denied, format, args...)
}

func noIDToken() error {
	return denied("the token that came with the request is no whole ID token").
		WithRemedy("sluice login")
}

// quotable cuts what a stranger wrote.
func quotable(s string) string { return s[:min(len(s), 100)] }

// check returns why the header can't be that of an ID token.
func (h header) check() error {
	if !slices.Contains(algorithms(), h.Algorithm) {
		return denied("the ID token is signed by algorithm %q, which doesn't count",
			quotable(h.Algorithm)).
			WithRemedy("have the issuer sign by one of: %s", strings.Join(algorithms(), ", "))
	}
	if h.Type != "" && !strings.EqualFold(h.Type, "JWT") {
		return denied("a token of type %q is no ID token", quotable(h.Type)).
			WithRemedy("send the ID token, as sluice login does")
	}
	return nil
}

// check returns why a token with these claims doesn't count. What it says is of the caller's own
// token, and of what anybody is told who signs in.
func (c claims) check(cfg Config, now time.Time) error {
	switch {
	case c.Issuer != cfg.Issuer:
		return denied("the ID token is of issuer %q, and not of %q", quotable(c.Issuer),
			cfg.Issuer).WithRemedy("sign in for this fleet: sluice login")
	case !slices.Contains(c.Audience, cfg.ClientID):
		return denied("the ID token is for %q, and not for client %q",
			quotable(strings.Join(c.Audience, " ")), cfg.ClientID).
			WithRemedy("sign in for this fleet: sluice login")
	case c.Party != "" && c.Party != cfg.ClientID, c.Party == "" && len(c.Audience) > 1:
		return denied("the ID token was made for client %q, and not for %q", quotable(c.Party),
			cfg.ClientID).WithRemedy("sign in for this fleet: sluice login")
	case c.Subject == "" || len(c.Subject) > maxName:
		return denied("the ID token names nobody in sub").WithRemedy("sluice login")
	case !c.Expiry.sane() || !c.NotBefore.sane() || !c.IssuedAt.sane() || c.Expiry == 0:
		return denied("the times of the ID token make no sense").WithRemedy("sluice login")
	}
	at := now.UTC().Format(time.RFC3339)
	if !now.Before(c.Expiry.time()) {
		return denied("the ID token expired at %s; this server's clock says %s",
			c.Expiry.time().Format(time.RFC3339), at).
			WithRemedy("sluice login; if that is no help, compare the clocks")
	}
	if from := max(c.NotBefore, c.IssuedAt).time(); from.After(now.Add(skew)) {
		return denied("the ID token counts from %s on; this server's clock says %s",
			from.Format(time.RFC3339), at).
			WithRemedy("set the clocks of the issuer and of this server")
	}
	return nil
}
