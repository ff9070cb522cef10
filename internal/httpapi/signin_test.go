package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/signin/signintest"
)

const testRoles = "group users use@prod\ngroup bosses admin@prod\nuser alice@example.com read@dev\n"

// signedIn is people of an issuer whose keys the test has.
type signedIn struct {
	*signin.People
	issuer *signintest.Issuer
	key    *signintest.Signer
}

func newSignedIn(t *testing.T) *signedIn {
	t.Helper()
	i, key := signintest.Start(t)
	p, err := signin.New(signin.Config{Issuer: i.URL, ClientID: signintest.ClientID,
		Roles: testRoles}, signin.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = g.Wait()
	})
	return &signedIn{p, i, key}
}

// token is one of bob, with some claims changed.
func (s *signedIn) token(t *testing.T, changed map[string]any) string {
	t.Helper()
	claims := s.issuer.Claims(map[string]any{"email": "bob@example.com"})
	for name, value := range changed {
		claims[name] = value
	}
	return s.key.Sign(t, claims)
}

func (s *signedIn) newAPI(t *testing.T, f *httpapitest.Fleet) *httpapi.API {
	t.Helper()
	deps := testDeps(f, io.Discard)
	deps.People = s
	return apiOf(t, deps)
}

// TestSignIn: everybody is told where, and nothing of who may do what; who has signed in is told
// how the server knows him.
func TestSignIn(t *testing.T) {
	people := newSignedIn(t)
	s := httptest.NewServer(people.newAPI(t, httpapitest.New()))
	defer s.Close()
	status, _, body := request(t, s, "GET", "/v1/signin", "", "")
	var offer api.SignIn
	if err := json.Unmarshal(body, &offer); err != nil || status != 200 ||
		offer.Issuer != people.issuer.URL || offer.ClientID != signintest.ClientID ||
		strings.Contains(string(body), "users") || strings.Contains(string(body), "alice") {
		t.Errorf("%d %s %v", status, body, err)
	}
	status, _, body = request(t, s, "GET", "/v1/whoami",
		people.token(t, map[string]any{"groups": []string{"users", "others"}}), "")
	var me api.Caller
	if err := json.Unmarshal(body, &me); err != nil || status != 200 || me.Kind != "oidc" ||
		me.Name != "oidc:bob@example.com" || me.Person == nil ||
		me.Person.Subject != "sub-of-alice" || strings.Join(me.Person.By, ",") != "group users" ||
		len(me.Groups) != 2 || len(me.Grants) != 1 ||
		me.Grants[0] != (api.Grant{Network: "prod", Verb: "use"}) ||
		time.Until(me.ExpiresAt) > time.Hour || me.ExpiresAt.IsZero() {
		t.Errorf("%d %s %v", status, body, err)
	}
	if status, _, body := request(t, s, "GET", "/v1/whoami", operatorToken, ""); status != 200 ||
		!strings.Contains(string(body), `"kind":"operator"`) {
		t.Errorf("%d %s", status, body)
	}
	plain := serve(t, httpapitest.New())
	if status, _, body := request(t, plain, "GET", "/v1/signin", "", ""); status != 404 {
		t.Errorf("where nobody signs in: %d %s", status, body)
	}
	if status, _, body := request(t, plain, "GET", "/v1/whoami", people.token(t, nil),
		""); status != 401 || !strings.Contains(string(body), "not this fleet's") {
		t.Errorf("where nobody signs in, with an ID token: %d %s", status, body)
	}
}

// TestStrangersLearnNothingBySigningIn: whatever is wrong with a token, the status is the same, and
// only an issuer that gives no keys is told apart, for which operators' tokens go on.
func TestStrangersLearnNothingBySigningIn(t *testing.T) {
	people := newSignedIn(t)
	s := httptest.NewServer(people.newAPI(t, httpapitest.New()))
	defer s.Close()
	for what, token := range map[string]string{
		"no role": people.token(t, map[string]any{"groups": "guests"}),
		"expired": people.token(t, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"false":   signintest.NewSigner(t, "first").Sign(t, people.issuer.Claims(nil)),
		"form":    "eyJ.eyJ.eyJ",
	} {
		status, header, body := request(t, s, "GET", "/v1/machines", token, "")
		if status != 401 || header.Get("WWW-Authenticate") == "" ||
			!strings.Contains(string(body), `"code":"denied"`) ||
			strings.Contains(string(body), token) {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	away := newSignedIn(t)
	away.issuer.Deal(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	away.People = mustPeople(t, away.issuer.URL)
	s = httptest.NewServer(away.newAPI(t, httpapitest.New()))
	defer s.Close()
	status, _, body := request(t, s, "GET", "/v1/machines",
		away.token(t, map[string]any{"groups": "users"}), "")
	if status != 503 || !strings.Contains(string(body), "can't be asked for its keys") {
		t.Errorf("the issuer is away: %d %s", status, body)
	}
	if status, _, _ := request(t, s, "GET", "/v1/machines", operatorToken, ""); status != 200 {
		t.Errorf("an operator is locked out: %d", status)
	}
}

// mustPeople returns people whose issuer is never asked, and so never has answered.
func mustPeople(t *testing.T, issuer string) *signin.People {
	t.Helper()
	p, err := signin.New(signin.Config{Issuer: issuer, ClientID: signintest.ClientID,
		Roles: testRoles, KeyWait: time.Millisecond},
		signin.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestWhoSignsInGrantsNoMoreThanItHas, nor for longer; and no token is called as a person is.
func TestWhoSignsInGrantsNoMoreThanItHas(t *testing.T) {
	people := newSignedIn(t)
	f := httpapitest.New()
	s := httptest.NewServer(people.newAPI(t, f))
	defer s.Close()
	boss := people.token(t, map[string]any{"groups": "bosses"})
	for _, body := range []string{
		`{"name":"x","grants":[{"verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"network":"dev","verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"network":"prod","verb":"read"}]}`,
		`{"name":"x","grants":[{"network":"prod","verb":"read"}],"ttl":7200}`,
	} {
		if status, _, answer := makeToken(t, s, boss, body); status != 403 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	if status, _, answer := makeToken(t, s, people.token(t, map[string]any{"groups": "users"}),
		`{"name":"x","grants":[{"network":"prod","verb":"read"}],"ttl":60}`); status != 403 {
		t.Errorf("no admin: %d %s", status, answer)
	}
	status, token, answer := makeToken(t, s, boss,
		`{"name":"x","grants":[{"network":"prod","app":"shop","verb":"admin"}],"ttl":60}`)
	if status != 201 || token.CreatedBy != "oidc:bob@example.com" {
		t.Errorf("within its scope: %d %s", status, answer)
	}
	for _, name := range []string{"oidc", "oidc:bob@example.com"} {
		if status, _, answer := makeToken(t, s, operatorToken,
			`{"name":"`+name+`","grants":[{"verb":"read"}]}`); status != 400 {
			t.Errorf("a token called %s: %d %s", name, status, answer)
		}
	}
}

// kept is an audit log in memory.
type kept struct {
	emptyAudit
	entries chan audit.Entry
}

func (k kept) End(e audit.Entry) error {
	k.entries <- e
	return nil
}

// TestWhoHasSignedInIsAudited by issuer, subject and the lines of the roles, and never the token.
func TestWhoHasSignedInIsAudited(t *testing.T) {
	people := newSignedIn(t)
	f := httpapitest.New()
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	log := kept{entries: make(chan audit.Entry, 1)}
	deps.People, deps.Audit = people, log
	s := httptest.NewServer(apiOf(t, deps))
	defer s.Close()
	newMachine(t, f, "web-1")
	boss := people.token(t, map[string]any{"groups": []string{"bosses", "users"}})
	if status, _, body := request(t, s, "POST", "/v1/machines/web-1/stop", boss,
		""); status/100 != 2 {
		t.Fatalf("%d %s", status, body)
	}
	e := <-log.entries
	text, err := json.Marshal(e)
	if err != nil || e.Kind != "oidc" || e.Subject != "oidc:bob@example.com" || e.Person == nil ||
		e.Person.Issuer != people.issuer.URL || e.Person.Subject != "sub-of-alice" ||
		strings.Join(e.Person.By, ",") != "group users,group bosses" ||
		strings.Contains(string(text), boss[len(boss)-20:]) {
		t.Errorf("%s, %v", text, err)
	}
}

// TestWhatRunsOnASignInEndsWithIt: with the ID token, and with the role that allowed it; a change
// of roles that leaves that alone ends nothing.
func TestWhatRunsOnASignInEndsWithIt(t *testing.T) {
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			kind, data, err := conn.Read(context.WithoutCancel(r.Context()))
			if err != nil || conn.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	}))
	defer worker.Close()
	people := newSignedIn(t)
	f := httpapitest.New()
	f.SetWorkerURL(worker.URL)
	newMachine(t, f, "web-1")
	url := running(t, people.newAPI(t, f))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	exec := func(token string) *websocket.Conn {
		conn, _, err := websocket.Dial(ctx, url+"/v1/machines/web-1/exec?cmd=cat",
			&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		return conn
	}
	endedBy := func(conn *websocket.Conn, says string) {
		t.Helper()
		_, _, err := conn.Read(ctx)
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation ||
			!strings.Contains(closed.Reason, says) {
			t.Errorf("it ended with %v, want %s", err, says)
		}
	}
	goesOn := func(conn *websocket.Conn) {
		t.Helper()
		if err := conn.Write(ctx, websocket.MessageBinary, []byte("still")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := conn.Read(ctx); err != nil || string(data) != "still" {
			t.Errorf("%q %v", data, err)
		}
	}
	user := map[string]any{"groups": "users"}
	short := exec(people.token(t, map[string]any{"groups": "users",
		"exp": time.Now().Add(2 * time.Second).Unix()}))
	mine := exec(people.token(t, user))
	endedBy(short, "the sign-in of oidc:bob@example.com ended at")
	goesOn(mine)
	if err := people.SetRoles("group users use@prod/shop\n"); err != nil { // all that it needs
		t.Fatal(err)
	}
	other := exec(people.token(t, map[string]any{"groups": "users",
		"exp": time.Now().Add(3 * time.Second).Unix()}))
	endedBy(other, "ended at") // a look at all that runs has come and gone
	goesOn(mine)
	if err := people.SetRoles("group users read@prod\n"); err != nil {
		t.Fatal(err)
	}
	endedBy(mine, "this needs use")
	denied := func(roles, says string) {
		t.Helper()
		if err := people.SetRoles("group users use@prod\n"); err != nil {
			t.Fatal(err)
		}
		conn := exec(people.token(t, user))
		if err := people.SetRoles(roles); err != nil {
			t.Fatal(err)
		}
		endedBy(conn, says)
	}
	denied("group users use@prod\ndeny user bob@example.com\n", "shut out")
	denied("group others use@prod\n", "name neither you nor")
}
