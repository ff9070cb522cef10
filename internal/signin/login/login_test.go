package login_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/signin/dextest"
	"github.com/sluice-platform/sluice/internal/signin/login"
	"github.com/sluice-platform/sluice/internal/signin/signintest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// oauth2 doesn't close the answer that begins the device flow; its time limit ends that.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.setRequestCancel.func4"))
}

func offerOf(d *dextest.Dex) signin.Offer {
	return signin.Offer{Issuer: d.URL, ClientID: dextest.ClientID, CA: d.CA}
}

// claimsOf reads a token without a look at its signature.
func claimsOf(t *testing.T, token string) (c struct {
	Email  string   `json:"email"`
	Groups []string `json:"groups"`
}) {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestARealIssuer: people sign in at it by a browser, and by a device's code; the server takes what
// they get, and what it is renewed to; and the same goes on when the issuer has started anew.
func TestARealIssuer(t *testing.T) {
	dex := dextest.Start(t, 24*time.Hour)
	people, err := signin.New(signin.Config{Issuer: dex.URL, CA: dex.CA,
		ClientID: dextest.ClientID, Roles: "group authors use@prod\n" +
			"user admin@example.com admin\ngroup \"Team A\" read\n",
		AskAgain: 100 * time.Millisecond},
		signin.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return people.Run(ctx) })
	t.Cleanup(func() { cancel(); _ = g.Wait() })

	browser := func(who dextest.As) login.Tokens {
		t.Helper()
		got, err := login.Browser(ctx, offerOf(dex), 0, func(_ context.Context, url string) error {
			page, err := dex.SignIn(url, who)
			if err == nil && !strings.Contains(page, "this page can be closed") {
				err = fmt.Errorf("the last page is %s", page)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	known := func(got login.Tokens, name, by string) {
		t.Helper()
		who, err := people.Person(ctx, got.IDToken)
		if err != nil || who.Name() != name || strings.Join(who.By, ",") != by {
			t.Errorf("%+v, %v; want %s by %s", who, err, name, by)
		}
	}
	kilgore := browser(dextest.Kilgore())
	known(kilgore, "oidc:kilgore@kilgore.trout", "group authors")
	known(browser(dextest.Admin()), "oidc:admin@example.com", "user admin@example.com")
	known(browser(dextest.Somebody("jane@example.com", "x", "Team A")), "oidc:jane@example.com",
		"group Team A")
	_, err = people.Person(ctx, browser(dextest.Somebody("joe@example.com", "x")).IDToken)
	if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "oidc:joe@example.com") {
		t.Errorf("somebody without a role: %v", err)
	}
	if strings.Contains(fmt.Sprint(kilgore), kilgore.IDToken[:20]) {
		t.Error("a token is printed")
	}

	device, err := login.Device(ctx, offerOf(dex), func(page, code string) error {
		g.Go(func() error { // it polls beside
			_, err := dex.EnterCode(page, code, dextest.Kilgore())
			return err
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	known(device, "oidc:kilgore@kilgore.trout", "group authors")

	dex.Kill()
	known(kilgore, "oidc:kilgore@kilgore.trout", "group authors")
	if _, err := login.Browser(ctx, offerOf(dex), 0, nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("the issuer is away: %v", err)
	}
	dex.Restart(t)
	known(browser(dextest.Kilgore()), "oidc:kilgore@kilgore.trout", "group authors")
	if _, err := people.Person(ctx, kilgore.IDToken); !errs.Is(err, errs.Denied) {
		t.Errorf("by a key that is gone: %v", err)
	}
}

// TestASessionIsRenewed once, by whoever comes first, shortly before its end; while the issuer is
// away what there is counts until its end; and one that refuses is told from one that is away.
func TestASessionIsRenewed(t *testing.T) {
	dex := dextest.Start(t, time.Hour)
	store := login.NewStore(filepath.Join(t.TempDir(), "a", "b"))
	const server = "https://127.0.0.1:7500"
	if _, err := store.Token(t.Context(), server); !errs.Is(err, errs.NotFound) {
		t.Errorf("before: %v", err)
	}
	first, err := login.Browser(t.Context(), offerOf(dex), 0,
		func(_ context.Context, url string) error {
			_, err := dex.SignIn(url, dextest.Kilgore())
			return err
		})
	if err != nil {
		t.Fatal(err)
	}
	if first.RefreshToken == "" {
		t.Fatal("it can't be renewed")
	}
	// until has the store take a token for one that ends at a time, after a life of an hour.
	until := func(tokens login.Tokens, end time.Time) {
		t.Helper()
		tokens.Expires, tokens.IssuedAt = end, end.Add(-time.Hour)
		if err := store.Save(login.Session{Server: server, Offer: offerOf(dex),
			Tokens: tokens}); err != nil {
			t.Fatal(err)
		}
	}
	until(first, time.Now().Add(30*time.Minute))
	if last, err := store.Last(); err != nil || last != server {
		t.Errorf("last: %q, %v", last, err)
	}
	token := func() string {
		t.Helper()
		text, err := store.Token(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if token() != first.IDToken {
		t.Error("it is renewed too early")
	}
	until(first, time.Now().Add(time.Minute))
	var g errgroup.Group
	renewed := make(chan string, 8)
	for range cap(renewed) {
		g.Go(func() error {
			text, err := login.NewStore(filepath.Dir(filesOf(t, store, server)[0])).
				Token(t.Context(), server)
			renewed <- text
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	second := <-renewed
	if c := claimsOf(t, second); second == first.IDToken || c.Email != "kilgore@kilgore.trout" ||
		strings.Join(c.Groups, ",") != "authors" {
		t.Errorf("%+v", c)
	}
	for range cap(renewed) - 1 {
		if other := <-renewed; other != second {
			t.Error("it was renewed more than once")
		}
	}
	for _, file := range filesOf(t, store, server) {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}

	dex.Kill()
	until(first, time.Now().Add(time.Minute))
	if token() != first.IDToken {
		t.Error("the issuer is away, and another token counts")
	}
	until(first, time.Now())
	if _, err := store.Token(t.Context(), server); !errs.Is(err, errs.Unavailable) {
		t.Errorf("the issuer is away: %v", err)
	}
	dex.Restart(t) // and has forgotten all
	if _, err := store.Token(t.Context(), server); !errs.Is(err, errs.Denied) ||
		errs.RemedyOf(err) != "sluice login" {
		t.Errorf("the issuer refuses: %v", err)
	}
	if err := store.Remove(server); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(server); !errs.Is(err, errs.NotFound) {
		t.Errorf("after the end: %v", err)
	}
	if last, err := store.Last(); err != nil || last != "" {
		t.Errorf("after the end: %q, %v", last, err)
	}
}

// filesOf returns the files of a store, by a look at where its session of a server is.
func filesOf(t *testing.T, store *login.Store, server string) []string {
	t.Helper()
	if _, err := store.Load(server); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(store.Dir(), "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	return files
}

// TestASessionThatOthersCanRead is not used.
func TestASessionThatOthersCanRead(t *testing.T) {
	store := login.NewStore(t.TempDir())
	if err := store.Save(login.Session{Server: "https://a", Tokens: login.Tokens{IDToken: "x",
		Expires: time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	if text, err := store.Token(t.Context(), "https://a"); err != nil || text != "x" {
		t.Fatalf("%q, %v", text, err)
	}
	for _, file := range filesOf(t, store, "https://a") {
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Token(t.Context(), "https://a"); !errs.Is(err, errs.Denied) {
		t.Errorf("%v", err)
	}
}

// TestTheBrowserComesBackFalsely: what isn't of this sign-in changes nothing, and what the issuer
// refuses, or another one has answered, ends it.
func TestTheBrowserComesBackFalsely(t *testing.T) {
	issuer, key := signintest.Start(t)
	offer := signin.Offer{Issuer: issuer.URL, ClientID: signintest.ClientID}
	for what, c := range map[string]struct {
		with  url.Values // beside the state
		token map[string]any
		says  string
	}{
		"refused": {url.Values{"error": {"access_denied"},
			"error_description": {"no\x1b[2J"}}, nil, "access_denied no"},
		"another issuer": {url.Values{"code": {"x"}, "iss": {"https://evil"}}, nil,
			"another issuer"},
		"no code": {url.Values{}, nil, "no code"},
		"another nonce": {url.Values{"code": {"x"}}, map[string]any{"nonce": "other"},
			"not of this sign-in"},
		"no nonce": {url.Values{"code": {"x"}}, map[string]any{}, "not of this sign-in"},
		"for others": {url.Values{"code": {"x"}}, map[string]any{"aud": "other"},
			"can't be used"},
		"no ID token": {url.Values{"code": {"x"}}, nil, "no ID token"},
	} {
		issuer.Give(func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("code_verifier") == "" || r.FormValue("client_id") != offer.ClientID {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			out := map[string]any{"access_token": "x", "token_type": "Bearer"}
			if c.token != nil {
				out["id_token"] = key.Sign(t, issuer.Claims(c.token))
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out)
		})
		_, err := login.Browser(t.Context(), offer, 0,
			func(ctx context.Context, page string) error {
				u, err := url.Parse(page)
				if err != nil {
					return err
				}
				q := u.Query()
				if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" ||
					len(q.Get("state")) < 20 || len(q.Get("code_challenge")) < 40 {
					t.Errorf("it begins with %s", page)
				}
				back := q.Get("redirect_uri")
				for _, bad := range []string{"?code=x", "?code=x&state=", "?code=x&state=other"} {
					resp, err := http.Get(back + bad)
					if err != nil {
						return err
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusNotFound {
						t.Errorf("%s: %s", bad, resp.Status)
					}
				}
				c.with.Set("state", q.Get("state"))
				resp, err := http.Get(back + "?" + c.with.Encode())
				if err != nil {
					return err
				}
				return resp.Body.Close()
			})
		if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), c.says) ||
			strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", what, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestAnIssuerToWhichNobodyShouldGo is not shown to a browser.
func TestAnIssuerToWhichNobodyShouldGo(t *testing.T) {
	liar := httptest.NewUnstartedServer(nil)
	liar.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": "http://" +
			liar.Listener.Addr().String(), "authorization_endpoint": "javascript:alert(1)",
			"token_endpoint": "http://10.0.0.1/"})
	})
	liar.Start()
	defer liar.Close()
	for _, issuer := range []string{"http://issuer.example.com", "file:///etc/passwd", "",
		liar.URL} {
		_, err := login.Browser(t.Context(), signin.Offer{Issuer: issuer, ClientID: "x"}, 0,
			func(context.Context, string) error {
				t.Error("a browser is opened at " + issuer)
				return nil
			})
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", issuer, err)
		}
	}
}
