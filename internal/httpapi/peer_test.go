package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
)

// secureAPI is an API over TLS that knows the workers of an authority.
func secureAPI(t *testing.T, f *httpapitest.Fleet, a *identity.Authority,
	poll time.Duration) string {
	t.Helper()
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.StoreKeys = f
	deps.Peer = a.Check
	h, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken, LongPoll: poll}, deps)
	if err != nil {
		t.Fatal(err)
	}
	return identitytest.Serve(t, a.Self(), h)
}

// call returns the status and the error of one call of a client.
func call(t *testing.T, c *http.Client, method, url, body string,
	header ...string) (int, api.Error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e api.ErrorBody
	_ = json.Unmarshal(data, &e) // what is no error has none
	return resp.StatusCode, e.Error
}

// TestAWorkerSpeaksForItself only, by its certificate, whatever token it sends.
func TestAWorkerSpeaksForItself(t *testing.T) {
	f, a := httpapitest.New(), identitytest.Authority(t, nil)
	url := secureAPI(t, f, a, 50*time.Millisecond)
	client := func(own identity.Own) *http.Client {
		return identitytest.Client(t, own, identity.IsServer)
	}
	w1, nobody := client(identitytest.Worker(t, a, "w1", 1)), identitytest.Client(t, nil, nil)
	server := client(a.Self())
	before := f.Mutations()
	for _, c := range []struct {
		who                *http.Client
		method, path, body string
		status             int
		says               string
	}{
		{w1, "GET", "/internal/v1/workers/w2/assignments", "", 403, `can't speak for worker "w2"`},
		{w1, "POST", "/internal/v1/workers/w2/report", `{"worker":"w2"}`, 403, "can't speak for"},
		{w1, "POST", "/internal/v1/workers/w2/renew", `{}`, 403, "can't speak for"},
		{w1, "GET", "/internal/v1/workers/w2/store-credentials", "", 403, "can't speak for"},
		{w1, "POST", "/internal/v1/workers/w1/report", `{"worker":"w2"}`, 400, `reports for`},
		{w1, "POST", "/internal/v1/join", `{"worker":"w2","address":"fd00::2"}`, 403, `"w2"`},
		{w1, "GET", "/v1/machines", "", 403, "as worker"},
		{server, "GET", "/internal/v1/workers/w1/assignments", "", 403, "not of a worker"},
		{nobody, "GET", "/internal/v1/workers/w1/assignments", "", 401, "no certificate"},
		{nobody, "POST", "/internal/v1/join", `{"worker":"w1","address":"fd00::2"}`, 401,
			"no certificate"},
	} {
		status, e := call(t, c.who, c.method, url+c.path, c.body)
		if status != c.status || !strings.Contains(e.Message, c.says) || e.Remedy == "" &&
			status != 400 {
			t.Errorf("%s %s = %d %+v; want %d %q", c.method, c.path, status, e, c.status, c.says)
		}
	}
	if n := f.Mutations(); n != before {
		t.Errorf("%d refused calls changed something", n-before)
	}
	// A token says that it is the token's holder who calls.
	for path, want := range map[string]int{"/internal/v1/workers/w1/assignments": 403,
		"/v1/workers": 200} {
		if status, e := call(t, w1, "GET", url+path, "", "Authorization",
			"Bearer "+operatorToken); status != want {
			t.Errorf("%s: %d %+v", path, status, e)
		}
	}
}

// TestCertificatesThatTheAPIRefuses: each with a reason, and the clocks' difference where that may
// be it.
func TestCertificatesThatTheAPIRefuses(t *testing.T) {
	f := httpapitest.New()
	var ahead time.Duration
	a := identitytest.Authority(t, func() time.Time { return time.Now().Add(ahead) })
	url := secureAPI(t, f, a, 50*time.Millisecond)
	w1 := identitytest.Worker(t, a, "w1", 1)
	foreign := identitytest.Worker(t, identitytest.Authority(t, nil), "w1", 1)
	path := url + "/internal/v1/workers/w1/assignments"
	// A client that takes any server, as the one of another fleet has to.
	stranger := func(own *identity.Held) *http.Client {
		cfg := identity.ClientConfig(own, identity.IsServer)
		cfg.VerifyConnection = nil
		tr := &http.Transport{TLSClientConfig: cfg}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	if status, e := call(t, stranger(foreign), "GET", path, ""); status != 403 ||
		!strings.Contains(e.Message+e.Cause, "not of the authority") {
		t.Errorf("of another fleet: %d %+v", status, e)
	}
	c := stranger(w1) // one connection for all of this
	if status, e := call(t, c, "GET", path, ""); status != 200 {
		t.Fatalf("%d %+v", status, e)
	}
	ahead = 40 * 24 * time.Hour
	date := time.Now().Add(-3 * time.Hour).UTC().Format(http.TimeFormat)
	if status, e := call(t, c, "GET", path, "", "Date", date); status != 403 ||
		!strings.Contains(e.Message+e.Cause, "has expired") ||
		!strings.Contains(e.Message, "clock is 3h0m") ||
		!strings.Contains(e.Remedy, "set the clocks") {
		t.Errorf("expired since the connection was opened: %d %+v", status, e)
	}
	ahead = -26 * time.Hour
	if status, e := call(t, c, "GET", path, ""); status != 403 ||
		!strings.Contains(e.Message+e.Cause, "valid from") {
		t.Errorf("not yet valid: %d %+v", status, e)
	}
	ahead = 0
	if status, e := call(t, c, "GET", path, ""); status != 200 {
		t.Errorf("with the clock right again: %d %+v", status, e)
	}
}

// TestRevocationIsAtOnce: also for a long poll that waits, and a stream of a machine there.
func TestRevocationIsAtOnce(t *testing.T) {
	a := identitytest.Authority(t, nil)
	started := make(chan struct{}, 1)
	f, _, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	})
	url := secureAPI(t, f, a, 10*time.Minute)
	w1 := identitytest.Client(t, identitytest.Worker(t, a, "w1", 1), identity.IsServer)
	operator := identitytest.Client(t, nil, nil)
	type result struct {
		status int
		e      api.Error
	}
	polled := make(chan result, 2)
	for _, path := range []string{"assignments?after=1", "store-credentials?have=1"} {
		go func() {
			status, e := call(t, w1, "GET", url+"/internal/v1/workers/w1/"+path, "")
			polled <- result{status, e}
		}()
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v1/machines/web-1/logs", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	stream, err := operator.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	<-started
	f.AwaitRefusals("w1", 3) // all wait
	if _, err := f.RevokeWorker(context.Background(), "w1", "test"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := <-polled; r.status != 403 || !strings.Contains(r.e.Message, "revoked") ||
			!strings.Contains(r.e.Remedy, "token create") {
			t.Errorf("a long poll: %d %+v", r.status, r.e)
		}
	}
	if _, err := io.Copy(io.Discard, stream.Body); err == nil {
		t.Log("the stream ended in order") // either is an end
	}
	for path, method := range map[string]string{"assignments": "GET", "renew": "POST",
		"store-credentials": "GET"} {
		if status, e := call(t, w1, method, url+"/internal/v1/workers/w1/"+path,
			"{}"); status != 403 || !strings.Contains(e.Message, "revoked") {
			t.Errorf("%s: %d %+v", path, status, e)
		}
	}
	if err := f.CheckWorker("w2", 1); err != nil {
		t.Errorf("another worker: %v", err)
	}
}
