package signin_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/signin/signintest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const roles = `# who may do what
group staff read use@prod
user root@example.com admin
subject sub-of-bob operate@/shop
`

// start runs People of an issuer until the test ends.
func start(t *testing.T, cfg signin.Config) *signin.People {
	t.Helper()
	if cfg.ClientID == "" {
		cfg.ClientID = signintest.ClientID
	}
	if cfg.Roles == "" {
		cfg.Roles = roles
	}
	p, err := signin.New(cfg, signin.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func refused(t *testing.T, what string, err error, kind errs.Kind, says string) {
	t.Helper()
	if !errs.Is(err, kind) || !strings.Contains(err.Error(), says) || errs.RemedyOf(err) == "" {
		t.Errorf("%s: %v (%s), try: %s; want %s %q", what, err, errs.KindOf(err),
			errs.RemedyOf(err), kind, says)
	}
}

// TestPeopleAreKnown by their tokens, and may do what the roles say of their groups and of them.
func TestPeopleAreKnown(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL})
	for _, c := range []struct {
		claims map[string]any
		name   string
		by     string
		grants []authz.Grant
	}{
		{nil, "oidc:alice@example.com", "group staff", []authz.Grant{{Verb: authz.Read},
			{Verb: authz.Use, Scope: authz.Scope{Network: "prod"}}}},
		{map[string]any{"groups": "staff"}, "oidc:alice@example.com", "group staff",
			[]authz.Grant{{Verb: authz.Read},
				{Verb: authz.Use, Scope: authz.Scope{Network: "prod"}}}},
		{map[string]any{"groups": nil, "email": "root@example.com"}, "oidc:root@example.com",
			"user root@example.com", []authz.Grant{{Verb: authz.Admin}}},
		{map[string]any{"groups": nil, "sub": "sub-of-bob", "email_verified": nil},
			"oidc:alice@example.com", "subject sub-of-bob",
			[]authz.Grant{{Verb: authz.Operate, Scope: authz.Scope{App: "shop"}}}},
	} {
		who, err := p.Person(t.Context(), key.Sign(t, i.Claims(c.claims)))
		if err != nil || who.Name() != c.name || strings.Join(who.By, ",") != c.by ||
			!slices.Equal(who.Grants, c.grants) {
			t.Errorf("%v: %+v, %v", c.claims, who, err)
		}
	}
}

// TestTokensThatDontCount are each refused for their own reason, and cost the issuer nothing.
func TestTokensThatDontCount(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL})
	if _, err := p.Person(t.Context(), key.Sign(t, i.Claims(nil))); err != nil {
		t.Fatal(err)
	}
	asked := i.Asked.Load() + 1 // for the key that isn't known
	now := time.Now()
	with := func(name string, value any) string {
		return key.Sign(t, i.Claims(map[string]any{name: value}))
	}
	der, err := x509.MarshalPKIXPublicKey(key.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hs := func(secret []byte) string {
		return signintest.SignBy(t, jose.SigningKey{Algorithm: jose.HS256,
			Key: jose.JSONWebKey{Key: secret, KeyID: key.ID}}, "JWT", i.Claims(nil))
	}
	raw := func(header string) string {
		payload, _ := json.Marshal(i.Claims(nil))
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
			base64.RawURLEncoding.EncodeToString(payload) + "."
	}
	const noSignature = "signature is not of key"
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	whole, forged := with("x", "y"), signintest.NewSigner(t, key.ID)
	other := signintest.NewSigner(t, "other")
	typed := signintest.SignBy(t, jose.SigningKey{Algorithm: jose.ES256,
		Key: jose.JSONWebKey{Key: key.Key, KeyID: key.ID}}, "at+jwt", i.Claims(nil))
	for what, c := range map[string]struct{ token, says string }{
		"no signature":      {raw(`{"alg":"none"}`), `algorithm "none"`},
		"None":              {raw(`{"alg":"NoNe","kid":"first"}`), `algorithm "NoNe"`},
		"no algorithm":      {raw(`{"kid":"first"}`), `algorithm ""`},
		"empty signature":   {raw(`{"alg":"ES256","kid":"first"}`), noSignature},
		"HMAC by the PEM":   {hs(public), `algorithm "HS256"`},
		"HMAC by the DER":   {hs(der), `algorithm "HS256"`},
		"cut":               {whole[:len(whole)-4], noSignature},
		"one byte changed":  {flip(whole), noSignature},
		"another's key":     {forged.Sign(t, i.Claims(nil)), noSignature},
		"unknown key":       {other.Sign(t, i.Claims(nil)), `key "other", which issuer`},
		"no JSON":           {"eyJ.eyJ.eyJ", "no whole ID token"},
		"access token":      {typed, `type "at+jwt"`},
		"huge":              {with("groups", strings.Repeat("x", 40<<10)), "at most 32768 count"},
		"other audience":    {with("aud", "shop"), `is for "shop"`},
		"no audience":       {with("aud", nil), `is for ""`},
		"two, no azp":       {with("aud", []string{"fleet", "shop"}), "made for client"},
		"azp of another":    {with("azp", "shop"), `made for client "shop"`},
		"other issuer":      {with("iss", "https://evil.example.com"), "evil.example.com"},
		"issuer with slash": {with("iss", i.URL+"/"), "is of issuer"},
		"expired":           {with("exp", now.Add(-time.Second).Unix()), "server's clock says"},
		"no end":            {with("exp", nil), "make no sense"},
		"end as text":       {with("exp", "tomorrow"), "no whole ID token"},
		"end before time":   {with("exp", -1), "make no sense"},
		"end after time":    {with("exp", 1e300), "make no sense"},
		"not yet":           {with("nbf", now.Add(time.Hour).Unix()), "counts from"},
		"made later":        {with("iat", now.Add(time.Hour).Unix()), "counts from"},
		"nobody":            {with("sub", nil), "names nobody"},
		"long sub":          {with("sub", strings.Repeat("x", 300)), "names nobody"},
		"no name":           {with("email", nil), `no claim "email"`},
		"name with a line":  {with("email", "a\nb"), `no claim "email"`},
		"name is a list":    {with("email", []string{"a"}), `no claim "email"`},
		"unverified":        {with("email_verified", false), "not verified"},
		"unverified text":   {with("email_verified", "false"), "not verified"},
		"groups no list":    {with("groups", 7), "no list of groups"},
		"no role":           {with("groups", []string{"guests"}), `("guests")`},
	} {
		_, err := p.Person(t.Context(), c.token)
		refused(t, what, err, errs.Denied, c.says)
	}
	if n := i.Asked.Load(); n > asked {
		t.Errorf("the issuer was asked %d times for the others", n-asked)
	}
}

// flip changes one letter of the signature.
func flip(token string) string {
	at := strings.LastIndex(token, ".") + 1
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	return token[:at] + string(other) + token[at+1:]
}

// TestClocksMayDiffer by less than a minute.
func TestClocksMayDiffer(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL})
	ahead := time.Now().Add(30 * time.Second).Unix()
	if _, err := p.Person(t.Context(), key.Sign(t, i.Claims(map[string]any{"iat": ahead,
		"nbf": ahead}))); err != nil {
		t.Error(err)
	}
}

// TestAFloodOfFalseTokensIsNoneAtTheIssuer: each names another key that isn't known.
func TestAFloodOfFalseTokensIsNoneAtTheIssuer(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL, AskAgain: time.Hour})
	if _, err := p.Person(t.Context(), key.Sign(t, i.Claims(nil))); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for n := range 50 {
		token := signintest.NewSigner(t, fmt.Sprint("key-", n)).Sign(t, i.Claims(nil))
		g.Go(func() error {
			_, err := p.Person(t.Context(), token)
			refused(t, "a key that isn't known", err, errs.Denied, "didn't have at")
			return nil
		})
	}
	_ = g.Wait()
	if n := i.Asked.Load(); n > 4 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

// TestTheIssuerChangesItsKeys: a token by a new one counts at once, and those by a key that was
// withdrawn do no more.
func TestTheIssuerChangesItsKeys(t *testing.T) {
	i, first := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL, AskAgain: time.Hour})
	old := first.Sign(t, i.Claims(nil))
	if _, err := p.Person(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	second := i.Rotate(t, "second")
	var g errgroup.Group
	for range 10 { // all wait for the same answer
		g.Go(func() error {
			_, err := p.Person(t.Context(), second.Sign(t, i.Claims(nil)))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	_, err := p.Person(t.Context(), old)
	refused(t, "by the withdrawn key", err, errs.Denied, `key "first", which issuer`)
}

// TestAnIssuerThatIsAway: nobody can sign in before it has given its keys, which is told as such;
// with keys that it gave people are known all the same; and when it is back all is well by itself.
func TestAnIssuerThatIsAway(t *testing.T) {
	private, err := json.Marshal(jose.JSONWebKey{KeyID: "first",
		Key: signintest.NewSigner(t, "").Key})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	for what, c := range map[string]struct {
		deal http.HandlerFunc
		says string
	}{
		"it fails": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}, "status 502"},
		"it hangs": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"doesn't answer in time"},
		"it drips": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond)
			}
		}, "doesn't answer in time"},
		"it is huge": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "longer than"},
		"it leads elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, "redirects to another host"},
		"it turns round": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/keys", http.StatusFound)
		}, "again and again"},
		"it has no keys": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[]}`)
		}, "no public key"},
		"it has shared secrets": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","kid":"first","k":"c2VjcmV0"}]}`)
		}, "no public key"},
		"it has private keys": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[%s]}`, private)
		}, "no public key"},
		"it has no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `<html>`)
		}, "can't be used"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			i, key := signintest.Start(t)
			i.Deal(c.deal)
			p := start(t, signin.Config{Issuer: i.URL, Timeout: 2 * time.Second,
				AskAgain: 10 * time.Millisecond, KeyWait: time.Minute})
			token := key.Sign(t, i.Claims(nil))
			_, err := p.Person(t.Context(), token)
			refused(t, what, err, errs.Unavailable, c.says)
			i.Deal(nil)
			backBy(t, p, token)
			i.Deal(c.deal)
			if _, err := p.Person(t.Context(), token); err != nil {
				t.Errorf("by a key that was given: %v", err)
			}
		})
	}
}

// backBy waits until a token counts.
func backBy(t *testing.T, p *signin.People, token string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, err := p.Person(t.Context(), token)
		if err == nil {
			return
		}
		if !errs.Is(err, errs.Unavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestAnIssuerThatIsNotThere, and one whose certificate isn't known.
func TestAnIssuerThatIsNotThere(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	foreign := httptest.NewTLSServer(http.NotFoundHandler())
	defer foreign.Close()
	foreign.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	i, key := signintest.Start(t)
	for url, says := range map[string]string{gone.URL: "connection refused",
		foreign.URL: "not trusted", i.URL + "/below": "can't be used"} {
		p := start(t, signin.Config{Issuer: url})
		_, err := p.Person(t.Context(), key.Sign(t, i.Claims(map[string]any{"iss": url})))
		refused(t, url, err, errs.Unavailable, says)
	}
}

// TestRolesAreRead by lines; one that isn't understood is named by its number, and changes nothing.
func TestRolesAreRead(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL})
	token := key.Sign(t, i.Claims(map[string]any{"groups": []string{"Team A", "cn=ops,dc=x"}}))
	_, err := p.Person(t.Context(), token)
	refused(t, "before", err, errs.Denied, `"Team A", "cn=ops,dc=x"`)
	if err := p.SetRoles("group \"Team A\"\tread@prod use@/shop\r\n\n# x\n" +
		"group cn=ops,dc=x operate@prod/shop"); err != nil {
		t.Fatal(err)
	}
	who, err := p.Person(t.Context(), token)
	if err != nil || len(who.Grants) != 3 || len(who.By) != 2 {
		t.Errorf("%+v, %v", who, err)
	}
	for text, says := range map[string]string{
		"":                              "name nobody",
		"# none\n\n":                    "name nobody",
		"group a read\ngroup b":         "line 2 of the roles: it grants nothing",
		"\n\nteam a read":               `line 3 of the roles: "team" is not`,
		"group a write":                 `verb "write" is not known`,
		"group a read@":                 `"read@" is not like`,
		"group a read@Prod":             `network name "Prod"`,
		"group a read@prod/Shop":        `app name "Shop"`,
		"group":                         "names nobody",
		"deny":                          "names nobody",
		"deny group":                    "names nobody",
		"deny group a read":             "grants nothing, and has",
		`group "a read`:                 "isn't closed",
		`group "" read`:                 "from 1 to",
		strings.Repeat("# x\n", 1<<19):  "are more than",
		"group a read\n<html>\n</html>": "line 2",
	} {
		err := p.SetRoles(text)
		refused(t, text[:min(len(text), 30)], err, errs.Invalid, says)
	}
	if _, err := p.Person(t.Context(), token); err != nil {
		t.Errorf("after texts that can't be used: %v", err)
	}
}

// TestAgain: somebody who may do something may do no more once the roles say so, or the token has
// ended; a line that denies counts before all others.
func TestAgain(t *testing.T) {
	i, key := signintest.Start(t)
	p := start(t, signin.Config{Issuer: i.URL})
	who, err := p.Person(t.Context(), key.Sign(t, i.Claims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Again(who, time.Now()); err != nil {
		t.Error(err)
	}
	_, err = p.Again(who, who.Expires)
	refused(t, "at the end", err, errs.Denied, "ended at")
	for _, deny := range []string{"user alice@example.com", "group staff", "subject sub-of-alice"} {
		if err := p.SetRoles("group staff read\nuser alice@example.com admin\ndeny " +
			deny); err != nil {
			t.Fatal(err)
		}
		_, err = p.Again(who, time.Now())
		refused(t, deny, err, errs.Denied, "shut out")
	}
	if err := p.SetRoles("group other read"); err != nil {
		t.Fatal(err)
	}
	_, err = p.Again(who, time.Now())
	refused(t, "no role", err, errs.Denied, "name neither you nor")
}

// TestOfTheAuthorityOnlyCertificatesAreTold: its file may have the key, too.
func TestOfTheAuthorityOnlyCertificatesAreTold(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	certificate := block("CERTIFICATE", s.Certificate().Raw)
	p, err := signin.New(signin.Config{Issuer: "https://a", ClientID: "x", Roles: roles,
		CA: []byte("words\n" + block("EC PRIVATE KEY", []byte("secret")) + certificate + "words")},
		signin.Deps{})
	if err != nil || string(p.Offer().CA) != certificate {
		t.Errorf("%v: %s", err, p.Offer().CA)
	}
}

// TestConfigsThatMakeNoSense are refused before anything is asked.
func TestConfigsThatMakeNoSense(t *testing.T) {
	for says, cfg := range map[string]signin.Config{
		"no client id":        {Issuer: "https://a", Roles: roles, ClientID: " "},
		"neither https":       {Issuer: "http://a.example.com", ClientID: "x", Roles: roles},
		"is not like https":   {Issuer: "https://user@a", ClientID: "x", Roles: roles},
		"no certificate":      {Issuer: "https://a", ClientID: "x", Roles: roles, CA: []byte("x")},
		"line 1 of the roles": {Issuer: "https://a", ClientID: "x", Roles: "x"},
	} {
		cfg.ClientID = strings.TrimSpace(cfg.ClientID)
		if _, err := signin.New(cfg, signin.Deps{}); !errs.Is(err, errs.Invalid) ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
