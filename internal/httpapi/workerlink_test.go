package httpapi_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
)

// TestTheProxySpeaksToThatWorker: what answers at a worker's URL has to be that worker, and gets no
// token of the caller. Calls share a connection, until the server's certificate is another.
func TestTheProxySpeaksToThatWorker(t *testing.T) {
	a := identitytest.Authority(t, nil)
	var calls, connections atomic.Int32
	worker := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("the caller's token was passed on")
		}
		if name, err := a.Check(r.TLS.PeerCertificates); err != nil ||
			name.Role != identity.Server {
			t.Errorf("called by %s, %v", name, err)
		}
		_, _ = io.WriteString(w, "of "+r.URL.Path)
	})
	f := httpapitest.New()
	newMachine(t, f, "web-1")
	var until atomic.Int64
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.Dial = func(w fleet.WorkerAPI) (*tls.Config, time.Time) {
		connections.Add(1)
		return identity.ClientConfig(a.Self(), identity.IsWorker(string(w.Worker))),
			time.Unix(until.Load(), 0)
	}
	h, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken}, deps)
	if err != nil {
		t.Fatal(err)
	}
	url := identitytest.Serve(t, a.Self(), h)
	operator := identitytest.Client(t, nil, nil)
	ask := func() (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET",
			url+"/v1/machines/web-1/services", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+operatorToken)
		resp, err := operator.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	until.Store(time.Now().Add(time.Hour).Unix())
	// The fake fleet says that all machines are on w1.
	for name, peer := range map[string]identity.Own{
		"another worker": identitytest.Worker(t, a, "w2", 1), "the server itself": a.Self(),
		"a worker of another fleet": identitytest.Worker(t, identitytest.Authority(t, nil), "w1",
			1)} {
		f.SetWorkerURL(identitytest.Serve(t, peer, worker))
		status, body := ask()
		if status < 400 || strings.Contains(body, "of /") || calls.Load() != 0 {
			t.Errorf("%s is taken for w1: %d %s", name, status, body)
		}
	}
	seen, before := map[string]bool{}, connections.Load()
	f.SetWorkerURL(identitytest.Serve(t, identitytest.Worker(t, a, "w1", 1), http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			seen[r.RemoteAddr] = true
			worker.ServeHTTP(w, r)
		})))
	for range 10 {
		if status, body := ask(); status != 200 || !strings.Contains(body, "of /machines/") {
			t.Fatalf("%d %s", status, body)
		}
	}
	if len(seen) != 1 || connections.Load() != before+1 {
		t.Errorf("10 calls came over %d connections", len(seen))
	}
	until.Store(time.Now().Add(-time.Hour).Unix())
	f.SetWorkerURL(identitytest.Serve(t, identitytest.Worker(t, a, "w1", 1), worker))
	before = connections.Load()
	for range 2 {
		ask()
	}
	if connections.Load() != before+2 {
		t.Error("what was opened with a certificate is used after it")
	}
}
