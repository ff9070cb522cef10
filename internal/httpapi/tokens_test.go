package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// running serves an API as a server does, with all that goes on beside requests.
func running(t *testing.T, a *httpapi.API) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return a.Run(ctx, l) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func makeToken(t *testing.T, s *httptest.Server, as, body string) (int, api.Token, string) {
	t.Helper()
	status, _, data := request(t, s, "POST", "/v1/tokens", as, body)
	var out api.Token
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return status, out, string(data)
}

// TestTokensLife: a token is made once, counts where it was made for, is listed without its text,
// and counts no more once it is revoked, with the reason.
func TestTokensLife(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	newMachine(t, f, "web-1")
	status, token, body := makeToken(t, s, operatorToken,
		`{"name":"ci","grants":[{"network":"prod","verb":"read"}],"ttl":3600}`)
	if status != 201 || !strings.HasPrefix(token.Token, "slt_"+token.ID+"_") ||
		token.State != "live" || token.CreatedBy != "operator" ||
		time.Until(token.ExpiresAt).Round(time.Hour) != time.Hour {
		t.Fatalf("%d %s", status, body)
	}
	kept, err := f.Token(fleet.TokenID(token.ID))
	if err != nil || strings.Contains(fmt.Sprintf("%v %s", kept, kept.Hash), token.Token[14:]) {
		t.Errorf("what is kept: %v, %v", kept, err)
	}
	if status, _, body := request(t, s, "GET", "/v1/machines/web-1", token.Token,
		""); status != 200 {
		t.Errorf("with the token: %d %s", status, body)
	}
	for _, path := range []string{"/v1/tokens", "/v1/tokens/ci", "/v1/tokens/" + token.ID} {
		status, _, body := request(t, s, "GET", path, operatorToken, "")
		if status != 200 || !strings.Contains(string(body), token.ID) ||
			strings.Contains(string(body), token.Token) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, body := makeToken(t, s, operatorToken,
		`{"name":"ci","grants":[{"verb":"read"}]}`); status != http.StatusConflict {
		t.Errorf("a second of that name: %d %v", status, body)
	}
	for range 2 { // it is idempotent
		if status, _, body := request(t, s, "DELETE", "/v1/tokens/ci", operatorToken,
			""); status != 200 || !strings.Contains(string(body), `"state":"revoked"`) {
			t.Errorf("revoke: %d %s", status, body)
		}
	}
	status, _, told := request(t, s, "GET", "/v1/machines/web-1", token.Token, "")
	if status != http.StatusUnauthorized || !strings.Contains(string(told), "was revoked at") {
		t.Errorf("with the revoked token: %d %s", status, told)
	}
}

// TestTokensThatDontCount: each is refused, and is told why.
func TestTokensThatDontCount(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	whole := addToken(t, f, "ci", []fleet.Grant{{Verb: "admin"}})
	if status, _, _ := request(t, s, "GET", "/v1/workers", whole, ""); status != 200 {
		t.Fatalf("the token: %d", status)
	}
	expired, forged := authz.NewSecret(), authz.NewSecret()
	for id, token := range map[string]fleet.Token{
		expired.ID: {Name: "old", Hash: expired.Hash, ExpiresAt: time.Now().Add(-time.Second)},
		forged.ID:  {Name: "other", Hash: authz.NewSecret().Hash}} {
		token.ID, token.Grants = fleet.TokenID(id), []fleet.Grant{{Verb: "admin"}}
		if err := f.CreateToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{whole[:len(whole)-3]: "cut or misspelt",
		"slt_": "cut or misspelt", authz.NewSecret().Text: "not this fleet's",
		forged.Text: "not this fleet's", expired.Text: "expired at"} {
		status, _, body := request(t, s, "GET", "/v1/workers", text, "")
		if status != http.StatusUnauthorized || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s, want %s", text, status, body, want)
		}
	}
}

// TestNobodyGrantsMoreThanItHas, nor for longer.
func TestNobodyGrantsMoreThanItHas(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	_, admin, _ := makeToken(t, s, operatorToken,
		`{"name":"boss","grants":[{"network":"prod","verb":"admin"}],"ttl":3600}`)
	before := f.Mutations()
	for _, body := range []string{
		`{"name":"x","grants":[{"verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"network":"test","verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"app":"shop","verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"network":"prod","verb":"read"},{"verb":"read"}],"ttl":60}`,
		`{"name":"x","grants":[{"network":"prod","verb":"read"}]}`,
		`{"name":"x","grants":[{"network":"prod","verb":"read"}],"ttl":7200}`,
	} {
		if status, _, answer := makeToken(t, s, admin.Token, body); status != 403 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	for _, body := range []string{`{"name":"x"}`, `{"name":"X","grants":[{"verb":"read"}]}`,
		`{"name":"x","grants":[{"verb":"write"}]}`, `{"name":"x","grants":[{}]}`,
		`{"name":"x","grants":[{"verb":"read","app":"A"}]}`,
		`{"name":"x","grants":[{"verb":"read"}],"ttl":-1}`} {
		if status, _, answer := makeToken(t, s, operatorToken, body); status != 400 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	if f.Mutations() != before {
		t.Error("what was refused has changed something")
	}
	if status, _, answer := makeToken(t, s, admin.Token,
		`{"name":"x","grants":[{"network":"prod","app":"shop","verb":"admin"}],"ttl":60}`,
	); status != 201 {
		t.Errorf("within its scope: %d %s", status, answer)
	}
}

// TestRevokedTokenEndsWhatRunsOnIt: an exec is told the reason, a stream is cut, and those of
// others go on.
func TestRevokedTokenEndsWhatRunsOnIt(t *testing.T) {
	ended := make(chan struct{}, 1)
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/exec") {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			kind, data, err := conn.Read(context.WithoutCancel(r.Context()))
			if err != nil {
				ended <- struct{}{}
				return
			}
			if conn.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	}))
	defer worker.Close()
	f := httpapitest.New()
	f.SetWorkerURL(worker.URL)
	newMachine(t, f, "web-1")
	url := running(t, newAPI(t, f, nil))
	use := []fleet.Grant{{Network: "prod", Verb: "use"}}
	mine, others := addToken(t, f, "mine", use), addToken(t, f, "others", use)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
	logs := func(token string) io.ReadCloser {
		path := "/v1/machines/web-1/logs?follow=1"
		req, err := http.NewRequestWithContext(ctx, "GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp.Body
	}
	myExec, otherExec, myLogs := exec(mine), exec(others), logs(mine)
	p, _ := authz.ParseToken(mine)
	if _, err := f.RevokeToken(ctx, fleet.TokenID(p.ID), "test"); err != nil {
		t.Fatal(err)
	}
	_, _, err := myExec.Read(ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation ||
		!strings.Contains(closed.Reason, "token mine ("+p.ID+") was revoked at") {
		t.Errorf("the exec ended with %v", err)
	}
	if _, err := io.ReadAll(myLogs); err == nil && ctx.Err() != nil {
		t.Error("the logs go on")
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the command's session at the machine goes on")
	}
	if err := otherExec.Write(ctx, websocket.MessageBinary, []byte("still")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := otherExec.Read(ctx); err != nil || string(data) != "still" {
		t.Errorf("another token's exec: %q %v", data, err)
	}
}

// TestExecIsRefusedInThePlatformsWords: an error of the platform before the session is an answer of
// this API, and a close of the platform comes as it is.
func TestExecIsRefusedInThePlatformsWords(t *testing.T) {
	_, s, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cmd") == "none" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"kind":"invalid","message":"no such directory"}`)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_ = conn.Write(r.Context(), websocket.MessageBinary, []byte{guestapi.FrameExit, 3})
		_ = conn.Close(websocket.StatusNormalClosure, "bye")
	})
	header := http.Header{"Authorization": {"Bearer " + operatorToken}}
	_, resp, err := websocket.Dial(t.Context(), s.URL+"/v1/machines/web-1/exec?cmd=none",
		&websocket.DialOptions{HTTPHeader: header})
	if err == nil || resp == nil || resp.StatusCode != http.StatusBadRequest {
		t.Fatalf("%v, %v", resp, err)
	}
	body, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(body), `"message":"no such directory"`) {
		t.Errorf("%s", body)
	}
	conn, _, err := websocket.Dial(t.Context(), s.URL+"/v1/machines/web-1/exec?cmd=a",
		&websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	if _, data, err := conn.Read(t.Context()); err != nil || len(data) != 2 || data[1] != 3 {
		t.Errorf("%v %v", data, err)
	}
	_, _, err = conn.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusNormalClosure ||
		closed.Reason != "bye" {
		t.Errorf("the end: %v", err)
	}
}

// TestOperatorTokensAreRotated: several count at a time, and a text without any changes nothing.
func TestOperatorTokensAreRotated(t *testing.T) {
	f := httpapitest.New()
	a := newAPI(t, f, nil)
	s := httptest.NewServer(a)
	defer s.Close()
	counts := func(token string, want bool) {
		t.Helper()
		status, _, _ := request(t, s, "GET", "/v1/workers", token, "")
		if (status == 200) != want {
			t.Errorf("%s: %d", token, status)
		}
	}
	const next = "the-next-operator-token"
	if err := a.SetOperatorTokens("# two\n" + operatorToken + "\n\n" + next + "\n"); err != nil {
		t.Fatal(err)
	}
	counts(operatorToken, true)
	counts(next, true)
	counts("# two", false)
	for _, bad := range []string{"", "# none\n", "short\n", scrapeToken} {
		if err := a.SetOperatorTokens(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	counts(next, true)
	if err := a.SetOperatorTokens(next); err != nil {
		t.Fatal(err)
	}
	counts(operatorToken, false)
	counts(next, true)
}

// writes counts how often it is written when tokens were used.
type writes struct {
	*httpapitest.Fleet
	n atomic.Int64
}

func (w *writes) UseTokens(ctx context.Context, used map[fleet.TokenID]time.Time) error {
	w.n.Add(1)
	return w.Fleet.UseTokens(ctx, used)
}

// TestLastUseIsWritten, apart from requests and now and then, however many there are.
func TestLastUseIsWritten(t *testing.T) {
	f := &writes{Fleet: httpapitest.New()}
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken,
		UsedEvery: 500 * time.Millisecond}, httpapi.DepsOf(f, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	url := running(t, a)
	text := addToken(t, f.Fleet, "ci", []fleet.Grant{{Verb: "read"}})
	p, _ := authz.ParseToken(text)
	began, asked := time.Now(), 0
	for end := began.Add(time.Minute); ; asked++ {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v1/workers", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+text)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		_ = resp.Body.Close()
		if kept, err := f.Token(fleet.TokenID(p.ID)); err != nil || kept.LastUsedAt.After(began) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is never written")
		}
	}
	if n := f.n.Load(); n != 1 || asked < 3 {
		t.Errorf("written %d times in %d requests", n, asked)
	}
}

// TestTokensHaveNamesOfTheirOwn: none is called as an operator is in the audit log, or as another
// token's id, by which that is found there.
func TestTokensHaveNamesOfTheirOwn(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	text := addToken(t, f, "first", []fleet.Grant{{Verb: "read"}})
	first, _ := authz.ParseToken(text)
	for _, name := range []string{"operator", "worker", "token", "metrics", "anonymous", "control",
		first.ID} {
		status, _, body := request(t, s, "POST", "/v1/tokens", operatorToken,
			`{"name":"`+name+`","grants":[{"verb":"read"}]}`)
		if status != 400 || !strings.Contains(string(body), "taken for another") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
