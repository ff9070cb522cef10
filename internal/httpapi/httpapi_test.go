package httpapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	operatorToken = "operator-token-for-tests"
	workerToken   = "certificate-of-w1" // see asWorker
	scrapeToken   = "scrape-token-for-tests"
)

func newAPI(t *testing.T, f *httpapitest.Fleet, log io.Writer) *httpapi.API {
	t.Helper()
	if log == nil {
		log = io.Discard
	}
	return apiOf(t, testDeps(f, log))
}

// testDeps are those of an API of a fleet in memory.
func testDeps(f *httpapitest.Fleet, log io.Writer) httpapi.Deps {
	deps := httpapi.DepsOf(f, slog.New(slog.NewJSONHandler(log, nil)))
	deps.StoreKeys = f
	deps.Exposition = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "exposed")
	})
	deps.Peer, deps.Audit = isW1, emptyAudit{}
	return deps
}

func apiOf(t *testing.T, deps httpapi.Deps) *httpapi.API {
	t.Helper()
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken,
		ScrapeToken: scrapeToken, Version: "v0.1.0",
		Heartbeat: 20 * time.Millisecond, LongPoll: 100 * time.Millisecond},
		deps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// emptyAudit keeps nothing; audited_test.go has a real one.
type emptyAudit struct{}

func (emptyAudit) Begin(audit.Entry) error { return nil }
func (emptyAudit) End(audit.Entry) error   { return nil }
func (emptyAudit) List(context.Context, audit.Query) (audit.Page, error) {
	return audit.Page{}, nil
}
func (emptyAudit) Verify(context.Context) (audit.Report, error) { return audit.Report{}, nil }

// isW1 takes whatever certificate for that of worker w1.
func isW1([]*x509.Certificate) (identity.Name, error) {
	return identity.Name{Fleet: "test", Role: identity.Worker, Worker: "w1", Term: 1}, nil
}

func serve(t *testing.T, f *httpapitest.Fleet) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(asWorker(documented(t, newAPI(t, f, nil))))
	t.Cleanup(s.Close)
	return s
}

// asWorker makes calls come as over TLS, and those with workerToken as over a connection of the
// worker w1. peer_test.go has real connections.
func asWorker(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{}
		if r.Header.Get("Authorization") == "Bearer "+workerToken {
			r.Header.Del("Authorization")
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		}
		next.ServeHTTP(w, r)
	})
}

func newMachine(t *testing.T, f *httpapitest.Fleet, name string) fleet.MachineID {
	t.Helper()
	v, err := f.CreateMachine(context.Background(),
		fleet.CreateMachine{Name: fleet.MachineName(name), App: "shop", Network: "prod",
			Config: fleet.MachineConfig{Image: "base"}})
	if err != nil {
		t.Fatal(err)
	}
	return v.Machine.ID
}

// request sends one request and returns its status and body.
func request(t *testing.T, s *httptest.Server, method, path, token,
	body string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, data
}

const goodMachine = `{"name":"web-1","app":"shop","network":"prod","config":{"image":"base","services":[
	{"name":"web","cmd":["busybox","httpd"],"http_port":8080,"check":{"kind":"http"}}]}}`

// TestEveryRoute calls each route once as it is meant to be called, in an order in which that
// works.
func TestEveryRoute(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		want                      string // part of the body
	}{
		{"GET", "/v1/health", "", "", 200, `"ok"`},
		{"GET", "/v1/openapi.yaml", "", "", 200, "openapi: 3"},
		{"GET", "/v1/server", operatorToken, "", 200, `"fleet_id":"test"`},
		{"POST", "/v1/machines", operatorToken, goodMachine, 201, `"image":"base"`},
		{"GET", "/v1/machines", operatorToken, "", 200, `"name":"web-1"`},
		{"GET", "/v1/machines?worker=w2", operatorToken, "", 200, `{"items":[]}`},
		{"GET", "/v1/machines/web-1", operatorToken, "", 200, `"events":[{`},
		{"GET", "/v1/machines/shop~web-1?wait=started", operatorToken, "", 200, `"healthy":true`},
		{"GET", "/v1/machines/web-1/events", operatorToken, "", 200, `"event":"create"`},
		{"POST", "/v1/machines/web-1/stop", operatorToken, "", 200, `"state":"stopped"`},
		{"POST", "/v1/machines/web-1/start", operatorToken, "", 200, `"generation":2`},
		{"POST", "/v1/machines/web-1/migrate", operatorToken, `{"to":"w2"}`, 202,
			`"step":"planned"`},
		{"GET", "/v1/moves/01MOVE00000000000000000002", operatorToken, "", 200,
			`"machine_name":"web-1"`},
		{"GET", "/v1/moves/01MOVE00000000000000000002?wait=done", operatorToken, "", 200,
			`"step":"planned"`},
		{"GET", "/v1/workers", operatorToken, "", 200, `"id":"w1"`},
		{"GET", "/v1/workers/w1", operatorToken, "", 200, `"pool_ready":2`},
		{"POST", "/v1/workers/w1/cordon", operatorToken, `{"reason":"fan"}`, 200,
			`"cordon_reason":"fan"`},
		{"POST", "/v1/workers/w1/uncordon", operatorToken, "", 200, `"state":"ready"`},
		{"POST", "/v1/drains", operatorToken, `{"workers":["w1","w1"]}`, 201, `"workers":["w1"]`},
		{"GET", "/v1/drains", operatorToken, "", 200, `"state":"running"`},
		{"GET", "/v1/drains/01DRAIN0000000000000000003", operatorToken, "", 200, `"moves":[]`},
		{"POST", "/v1/drains/01DRAIN0000000000000000003/cancel", operatorToken, "", 200,
			`"state":"cancelled"`},
		{"GET", "/v1/drains/01DRAIN0000000000000000003/watch", operatorToken, "", 200,
			"event: drain\ndata: {"},
		{"POST", "/v1/worker-tokens", operatorToken, `{"worker":"w9","ttl_seconds":600}`, 201,
			`"token":"sluice-join.`},
		{"GET", "/v1/worker-tokens", operatorToken, "", 200, `"worker":"w9"`},
		{"GET", "/v1/authority", operatorToken, "", 200, `"behind":["w2"]`},
		{"GET", "/v1/authority.pem", "", "", 200, "pem"},
		{"POST", "/v1/authority/rotate", operatorToken, `{"step":"begin"}`, 200, `"phase":"begun"`},
		{"DELETE", "/v1/worker-tokens/token1", operatorToken, "", 204, ""},
		{"POST", "/v1/workers/w2/revoke", operatorToken, `{"reason":"stolen"}`, 200,
			`"reason":"stolen"`},
		{"GET", "/v1/images", operatorToken, "", 200, `"name":"base"`},
		{"PUT", "/v1/images/site?size_bytes=1073741824", operatorToken, "tar", 201,
			`"size_bytes":1073741824`},
		{"GET", "/v1/networks", operatorToken, "", 200, `"name":"prod","key":1,"encrypted":1`},
		{"POST", "/v1/networks/prod/rekey", operatorToken, "", 202, `"waiting":[{`},
		{"POST", "/v1/machines/shop~web-1/disk-key", operatorToken, "", 200, `"key":"abab`},
		{"PUT", "/v1/networks/prod/apps/shop/secrets/TOKEN", operatorToken,
			`{"value":"hidden"}`, 200,
			`"name":"TOKEN"`},
		{"GET", "/v1/networks/prod/apps/shop/secrets", operatorToken, "", 200, `"name":"TOKEN"`},
		{"DELETE", "/v1/networks/prod/apps/shop/secrets/TOKEN", operatorToken, "", 204, ""},
		{"DELETE", "/v1/machines/web-1", operatorToken, "", 204, ""},
		{"POST", "/internal/v1/join", workerToken,
			`{"worker":"w1","address":"fd00::3","from_the_future":1}`, 200, `"number":1`},
		{"POST", "/internal/v1/enroll", workerToken, `{"worker":"w9","token":"x"}`, 200, `of w9`},
		{"POST", "/internal/v1/workers/w1/renew", workerToken, `{}`, 200, `of w1`},
		{"GET", "/internal/v1/workers/w1/assignments?after=0", workerToken, "", 200,
			`"revision":1`},
		{"GET", "/internal/v1/workers/w1/assignments?after=1", workerToken, "", 200,
			`"revision":1`},
		{"POST", "/internal/v1/workers/w1/report", workerToken, `{"worker":"w1","vms":[]}`, 204,
			""},
	} {
		status, _, body := request(t, s, c.method, c.path, c.token, c.body)
		if status != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s = %d %s; want %d and %s", c.method, c.path, status, body, c.status,
				c.want)
		}
	}
}

// TestBadInputChangesNothing: each is refused with an error that names what is wrong.
func TestBadInputChangesNothing(t *testing.T) {
	f := httpapitest.New()
	newMachine(t, f, "web-1")
	s := serve(t, f)
	machine := func(change string) string {
		return strings.Replace(goodMachine, `"name":"web-1"`, change, 1)
	}
	config := func(extra string) string {
		return strings.Replace(goodMachine, `"image":"base"`, `"image":"base",`+extra, 1)
	}
	service := func(text string) string {
		return `{"name":"web-2","app":"shop","network":"prod","config":{"image":"base","services":[` + text + `]}}`
	}
	move, err := f.Migrate(t.Context(), "web-1", "w2")
	if err != nil {
		t.Fatal(err)
	}
	before := f.Mutations()
	for _, c := range []struct {
		method, path, body string
		status             int
		code, message      string
	}{
		{"POST", "/v1/machines", `{`, 400, "invalid", "body"},
		{"POST", "/v1/machines", ``, 400, "invalid", `machine name ""`},
		{"POST", "/v1/machines", `{"nmae":"x"}`, 400, "invalid", `unknown field "nmae"`},
		{"POST", "/v1/machines", goodMachine + goodMachine, 400, "invalid", "more than one"},
		{"POST", "/v1/machines", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "invalid",
			"larger than"},
		{"POST", "/v1/machines", goodMachine, 409, "exists", "already"},
		{"POST", "/v1/machines", machine(`"name":"Web 1"`), 400, "invalid", `"Web 1"`},
		{"POST", "/v1/machines", machine(`"name":"0123456789abcd"`), 400, "invalid",
			"looks like a machine id"},
		{"POST", "/v1/machines", machine(`"name":"web-2","worker":"w9"`), 404, "not_found", `"w9"`},
		{"POST", "/v1/machines", strings.Replace(machine(`"name":"web-2"`), `"base"`, `"none"`, 1),
			404, "not_found", `"none"`},
		{"POST", "/v1/machines", config(`"cpus":-1`), 400, "invalid", "cpus -1"},
		{"POST", "/v1/machines", config(`"cpus":1e9`), 400, "invalid", "cpus"},
		{"POST", "/v1/machines", config(`"memory_mib":1`), 400, "invalid", "1 MiB"},
		{"POST", "/v1/machines", config(`"disk_gib":-5`), 400, "invalid", "-5 GiB"},
		{"POST", "/v1/machines", config(`"disk_gib":16385`), 400, "invalid", "16385 GiB"},
		{"POST", "/v1/machines", config(`"stop_timeout":301`), 400, "invalid", "301"},
		{"POST", "/v1/machines", config(`"stop_signal":"SIGFOO"`), 400, "invalid", "SIGFOO"},
		{"POST", "/v1/machines", config(`"env":{"A=B":"c"}`), 400, "invalid", "A=B"},
		{"POST", "/v1/machines", service(`{"name":"a"}`), 400, "invalid", "no command"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"]},{"name":"a","cmd":["x"]}`), 400,
			"invalid", "two services"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"needs":["b"]}`), 400, "invalid",
			`needs "b"`},
		{"POST", "/v1/machines",
			service(
				`{"name":"a","cmd":["x"],"needs":["b"]},{"name":"b","cmd":["x"],"needs":["a"]}`),
			400,
			"invalid", "a → b → a"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"http_port":70000}`), 400,
			"invalid", "70000"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"dir":"srv"}`), 400, "invalid",
			"srv"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"check":{"kind":"http"}}`), 400,
			"invalid", "no port"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"check":{"kind":"ping"}}`), 400,
			"invalid", "ping"},
		{"POST", "/v1/machines", service(`{"name":"a","cmd":["x"],"check":{"kind":"exec"}}`), 400,
			"invalid", "no command"},
		{"GET", "/v1/machines?limit=0", "", 400, "invalid", "limit"},
		{"GET", "/v1/machines?page=nonsense", "", 400, "invalid", "page token"},
		{"GET", "/v1/machines/none", "", 404, "not_found", `"none"`},
		{"GET", "/v1/machines/web", "", 404, "not_found", `"web"`}, // a prefix is no name
		{"GET", "/v1/machines/web-1?wait=forever", "", 400, "invalid", "forever"},
		{"DELETE", "/v1/machines/none", "", 404, "not_found", `"none"`},
		{"PUT", "/v1/machines/web-1", "", 405, "invalid", "DELETE or GET"},
		{"GET", "/v1/machines/web-1/migrate", "", 405, "invalid", "POST"},
		{"POST", "/v1/machines/web-1/migrate", `{"to":"w9"}`, 404, "not_found", "w9"},
		{"POST", "/v1/machines/web-1/migrate", `{"to":"W 9"}`, 400, "invalid", "W 9"},
		{"GET", "/v1/moves/none", "", 404, "not_found", "none"},
		{"GET", "/v1/moves/" + string(move.Move.ID) + "?wait=soon", "", 400, "invalid", "soon"},
		{"GET", "/v1/workers/w9", "", 404, "not_found", "w9"},
		{"POST", "/v1/workers/w9/cordon", "", 404, "not_found", "w9"},
		{"POST", "/v1/workers/w9/revoke", "", 404, "not_found", "w9"},
		{"POST", "/v1/worker-tokens", `{"worker":"W 9"}`, 400, "invalid", "W 9"},
		{"POST", "/v1/worker-tokens", `{"worker":"w9","ttl_seconds":-1}`, 400, "invalid", "-1"},
		{"POST", "/v1/authority/rotate", `{"step":"jump"}`, 400, "invalid", "jump"},
		{"DELETE", "/v1/worker-tokens/none", "", 404, "not_found", "none"},
		{"POST", "/v1/workers/w1/cordon", `{"reason":1}`, 400, "invalid", "reason"},
		{"POST", "/v1/drains", `{"workers":[]}`, 400, "invalid", "at least one"},
		{"POST", "/v1/drains", `{"workers":["w1","w9"]}`, 404, "not_found", "w9"},
		{"GET", "/v1/drains/none/watch", "", 404, "not_found", "none"},
		{"POST", "/v1/drains/none/cancel", "", 404, "not_found", "none"},
		{"PUT", "/v1/images/site", "x", 400, "invalid", "size_bytes"},
		{"PUT", "/v1/images/site?size_bytes=1048577", "x", 400, "invalid", "size_bytes"},
		{"PUT", "/v1/images/Site?size_bytes=1073741824", "x", 400, "invalid", "Site"},
		{"PUT", "/v1/images/base?size_bytes=1073741824", "x", 409, "exists", "base"},
		{"GET", "/v2/machines", "", 404, "not_found", "/v2/machines"},
		{"GET", "/v1/machines/web-1/", "", 404, "not_found", "nothing"},
	} {
		status, header, body := request(t, s, c.method, c.path, operatorToken, c.body)
		var e api.ErrorBody
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("%s %s: %s is no error: %v", c.method, c.path, body, err)
		}
		text := e.Error.Error()
		if status != c.status || e.Error.Code != c.code || !strings.Contains(text, c.message) {
			t.Errorf("%s %s %.80s = %d %s %.200s; want %d %s and %q", c.method, c.path, c.body,
				status, e.Error.Code, text, c.status, c.code, c.message)
		}
		if e.Error.RequestID == "" || e.Error.RequestID != header.Get("X-Request-Id") {
			t.Errorf("%s %s: request id %q, header %q", c.method, c.path, e.Error.RequestID,
				header.Get("X-Request-Id"))
		}
	}
	if f.Mutations() != before {
		t.Fatalf("%d mutations happened", f.Mutations()-before)
	}
}

func TestTokens(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	for _, c := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/v1/workers", "", 401}, {"GET", "/v1/workers", "wrong", 401},
		{"GET", "/v1/workers", workerToken, 403},
		{"GET", "/v1/machines/x/exec", "", 401}, {"GET", "/v1/machines/x/exec", workerToken, 403},
		{"POST", "/v1/drains", workerToken, 403}, {"POST", "/internal/v1/join", operatorToken, 403},
		{"POST", "/internal/v1/enroll", operatorToken, 403},
		{"GET", "/v1/worker-tokens", "", 401}, {"POST", "/v1/worker-tokens", workerToken, 403},
		{"POST", "/v1/workers/w1/revoke", scrapeToken, 403},
		{"POST", "/internal/v1/workers/w1/report", "", 401}, {"GET", "/v1/health", "", 200},
		{"GET", "/metrics", "", 401}, {"GET", "/metrics", workerToken, 403},
		{"GET", "/metrics", scrapeToken, 200},
		{"GET", "/metrics", operatorToken, 200}, {"GET", "/v1/workers", scrapeToken, 403},
		{"GET", "/healthz", "", 200},
		{"POST", "/internal/v1/join", scrapeToken, 403}, {"GET", "/readyz", "", 200},
	} {
		status, header, body := request(t, s, c.method, c.path, c.token, "{}")
		if status != c.status {
			t.Errorf("%s %s with %q = %d %s, want %d", c.method, c.path, c.token, status, body,
				c.status)
		}
		if status == 401 &&
			header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: 401 without WWW-Authenticate", c.method, c.path)
		}
	}
	if f.Mutations() != 0 {
		t.Fatal("a refused call changed something")
	}
	for _, cfg := range []httpapi.Config{{OperatorToken: "short"},
		{OperatorToken: operatorToken, ScrapeToken: operatorToken},
		{OperatorToken: operatorToken, ScrapeToken: "short"}} {
		if _, err := httpapi.New(cfg, httpapi.Deps{}); !errs.Is(err, errs.Invalid) {
			t.Errorf("tokens %+v: %v", cfg, err)
		}
	}
}

// TestReadySaysWhyNot: whoever asks without a token learns the reason.
func TestReadySaysWhyNot(t *testing.T) {
	f := httpapitest.New()
	lacks := []string{"it has not read its records yet"}
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.Lacks = func(context.Context) []string { return lacks }
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken},
		deps)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()
	status, _, body := request(t, s, "GET", "/readyz", "", "")
	if status != 503 ||
		string(body) != `{"ok":false,"reasons":["it has not read its records yet"]}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := request(t, s, "GET", "/healthz", "", ""); status != 200 {
		t.Errorf("a process that lives and is not ready: %d", status)
	}
	lacks = nil
	if status, _, body = request(t, s, "GET", "/readyz", "", ""); status != 200 ||
		string(body) != `{"ok":true}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
}

// TestRequestsAreCountedByRoute: by what the call is, however many paths are asked for.
func TestRequestsAreCountedByRoute(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	deps := httpapi.DepsOf(httpapitest.New(), slog.New(slog.DiscardHandler))
	deps.Requests = httpapi.NewRequests(reg)
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken},
		deps)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()
	for _, call := range [][2]string{{"GET", "/v1/machines/a"}, {"GET", "/v1/machines/b"},
		{"GET", "/x"}, {"GET", "/y"}, {"BREW", "/v1/machines/a"}, {"HEAT", "/v1/machines/b"}} {
		request(t, s, call[0], call[1], operatorToken, "")
	}
	want := map[string]uint64{"404 GET /v1/machines/{ref}": 2, "404 GET other": 2,
		"405 other /v1/machines/{ref}": 2}
	got := map[string]uint64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetHistogram().GetSampleCount()
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// TestKindsBecomeStatuses has the whole table, so that a change of it is seen.
func TestKindsBecomeStatuses(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	for kind, want := range map[errs.Kind]int{errs.Invalid: 400, errs.Denied: 403,
		errs.NotFound: 404, errs.Exists: 409, errs.Conflict: 409,
		errs.Fenced: 409, errs.Unsupported: 501, errs.Unavailable: 503, errs.Exhausted: 507,
		errs.Corrupt: 500, errs.Internal: 500, "newer": 500} {
		f.Fail(errs.Wrap(kind, io.ErrUnexpectedEOF, "do it").WithRemedy("do that"))
		status, header, body := request(t, s, "GET", "/v1/workers/w1", operatorToken, "")
		var e api.ErrorBody
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		e.Error.RequestID = ""
		if status != want || e.Error != (api.Error{Code: string(kind), Message: "do it",
			Cause: "unexpected EOF", Remedy: "do that"}) {
			t.Errorf("%s = %d %+v, want %d", kind, status, e.Error, want)
		}
		if (header.Get("Retry-After") != "") != (kind == errs.Unavailable) {
			t.Errorf("%s: Retry-After %q", kind, header.Get("Retry-After"))
		}
	}
}

func TestPagesNeitherRepeatNorHide(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	want := map[string]bool{}
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		want[string(newMachine(t, f, n))] = true
	}
	token, pages := "", 0
	for {
		_, _, body := request(t, s, "GET", "/v1/machines?limit=2&page="+token, operatorToken, "")
		var list api.List[api.Machine]
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		pages++
		for _, m := range list.Items {
			if !want[m.ID] {
				t.Fatalf("machine %s came twice", m.ID)
			}
			delete(want, m.ID)
			if pages == 1 { // what goes between two pages takes nothing with it
				if err := f.DestroyMachine(context.Background(), m.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		if token = list.Next; token == "" {
			break
		}
	}
	if pages != 3 || len(want) != 0 {
		t.Fatalf("%d pages, missing %v", pages, want)
	}
}

// TestRoutesAreInOpenAPI: those that are passed on to a machine's platform are compared there.
func TestRoutesAreInOpenAPI(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	promised := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			promised[method+" "+path] = !slices.Contains(op.Tags, "platform")
		}
	}
	for _, r := range newAPI(t, httpapitest.New(), nil).Routes() {
		if !promised[r] {
			t.Errorf("%s is not in api/openapi.yaml", r)
		}
		delete(promised, r)
	}
	for r, ours := range promised {
		if ours {
			t.Errorf("%s is in api/openapi.yaml and is no route", r)
		}
	}
}

func TestAccessLogHasNoSecrets(t *testing.T) {
	f := httpapitest.New()
	var log bytes.Buffer
	a := newAPI(t, f, &log)
	for _, path := range []string{"/v1/workers", "/v1/machines/none", "/v1/machines?limit=x"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+operatorToken)
		r.Header.Set("X-Request-Id", "mine\" injected=\"x")
		a.ServeHTTP(httptest.NewRecorder(), r)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), log.String())
	}
	for i, want := range []int{200, 404, 400} {
		var e struct {
			Msg, RequestID, Path string
			Status               int
		}
		if err := json.Unmarshal([]byte(lines[i]), &e); err != nil || e.Status != want ||
			e.Msg != "request" {
			t.Errorf("line %s: %v", lines[i], err)
		}
	}
	if strings.Contains(log.String(), operatorToken) || strings.Contains(log.String(), "injected") {
		t.Fatalf("the log has what it must not have: %s", log.String())
	}
}

// TestRunStopsInOrder: a watch and a long poll end at once when the server is told to stop.
func TestRunStopsInOrder(t *testing.T) {
	f := httpapitest.New()
	if _, err := f.StartDrain(context.Background(), []fleet.WorkerID{"w1"}, "test"); err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, f, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx, l) }()
	req, err := http.NewRequest("GET", "http://"+l.Addr().
		String()+"/v1/drains/01DRAIN0000000000000000001/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 1)
	if _, err := resp.Body.Read(buf); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("the watch was cut instead of ended: %v", err)
	}
	select {
	case err := <-ran:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not return")
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Fatalf("stopping took %s", d)
	}
}
