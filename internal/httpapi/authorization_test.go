package httpapi_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

var rewrite = flag.Bool("rewrite", false,
	"write the table into docs/authorization.md; commit only what you understand")

const tablePath = "../../docs/authorization.md"

const tableHead = `# Who may do what

Made by a test that asks a real API, route by route, as each of the callers; change it with
` + "`go test ./internal/httpapi -run AuthorizationTable -rewrite`" + `. What verbs and scopes are: [decision
0031](decisions/0031-who-may-do-what.md). The machine that is asked about is of app shop in network prod.

yes: it is done. empty: it is answered, with nothing of what the caller may not see. hidden: the answer is that for
what doesn't exist, word for word. 403: refused. 401: nobody knows the caller.

`

// role is a caller of the table.
type role struct {
	name   string
	token  string // "": made for the grants
	group  string // of somebody who has signed in
	grants []fleet.Grant
	ended  bool
}

func roles() []role {
	on := func(network, app, verb string) []fleet.Grant {
		return []fleet.Grant{{Network: fleet.NetworkName(network), App: fleet.AppName(app),
			Verb: verb}}
	}
	return []role{
		{name: "nobody", token: "-"},
		{name: "revoked", grants: on("", "", "admin"), ended: true},
		{name: "admin of net test", grants: on("test", "", "admin")},
		{name: "admin of prod/blog", grants: on("prod", "blog", "admin")},
		{name: "prod read", grants: on("prod", "", "read")},
		{name: "prod use", grants: on("prod", "", "use")},
		{name: "prod operate", grants: on("prod", "", "operate")},
		{name: "prod admin", grants: on("prod", "", "admin")},
		{name: "shop use", grants: on("", "shop", "use")},
		{name: "fleet read", grants: on("", "", "read")},
		{name: "fleet operate", grants: on("", "", "operate")},
		{name: "fleet admin", grants: on("", "", "admin")},
		{name: "signed in, no role", group: "guests", ended: true},
		{name: "signed in, prod use", group: "users"},
		{name: "operator file", token: operatorToken},
		{name: "worker", token: workerToken},
		{name: "metrics", token: scrapeToken},
	}
}

// outsider reports whether nothing of the machine in prod may reach a role.
func (r role) outsider() bool {
	return r.ended || r.token == "-" || r.name == "admin of net test" ||
		r.name == "admin of prod/blog"
}

// scene is a fleet with one of each thing.
type scene struct {
	people  *signedIn
	fleet   *httpapitest.Fleet
	api     *httpapi.API
	machine fleet.MachineID
	move    fleet.MoveID
	drain   fleet.DrainID
	token   string // of the role
}

func newScene(t *testing.T, worker string, people *signedIn, r role) *scene {
	t.Helper()
	f := httpapitest.New()
	f.SetWorkerURL(worker)
	s := &scene{people: people, fleet: f, api: people.newAPI(t, f),
		machine: newMachine(t, f, "zebra"), token: r.token}
	move, err := f.Migrate(t.Context(), string(s.machine), "w2")
	if err != nil {
		t.Fatal(err)
	}
	drain, err := f.StartDrain(t.Context(), []fleet.WorkerID{"w2"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.move, s.drain = move.Move.ID, drain.Drain.ID
	f.Update(func(tx *httpapitest.Tx) { // so that a watch of it ends
		tx.Drains[s.drain].Drain.State = fleet.DrainDone
	})
	if _, err := f.SetSecret(t.Context(), fleet.SecretScope{Network: "prod", App: "shop"}, "some",
		[]byte("x")); err != nil {
		t.Fatal(err)
	}
	most := int64(10)
	if _, err := f.SetQuota(t.Context(), fleet.QuotaScope{Network: "prod"},
		map[fleet.Quantity]*int64{fleet.QuotaMachines: &most}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.CreateJoinToken(t.Context(), "w9", time.Hour); err != nil {
		t.Fatal(err)
	}
	addToken(t, f, "giraffe", []fleet.Grant{{Network: "prod", App: "shop", Verb: "read"}})
	if r.group != "" {
		s.token = people.token(t, map[string]any{"groups": r.group})
	}
	if s.token == "" {
		text := addToken(t, f, "mine", r.grants)
		s.token = text
		if r.ended {
			p, _ := authz.ParseToken(text)
			if _, err := f.RevokeToken(t.Context(), fleet.TokenID(p.ID), "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.token == "-" {
		s.token = ""
	}
	return s
}

// addToken makes a token and returns its text.
func addToken(t *testing.T, f *httpapitest.Fleet, name string, grants []fleet.Grant) string {
	t.Helper()
	secret := authz.NewSecret()
	if err := f.CreateToken(t.Context(), fleet.Token{ID: fleet.TokenID(secret.ID), Name: name,
		Hash: secret.Hash, Grants: grants, CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return secret.Text
}

// ask sends one request, and returns the status and the body without the request's id.
func (s *scene) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	w := httptest.NewRecorder()
	asWorker(s.api).ServeHTTP(w, r)
	text := w.Body.String()
	var e api.ErrorBody
	if json.Unmarshal(w.Body.Bytes(), &e) == nil && e.Error.RequestID != "" {
		text = strings.ReplaceAll(text, e.Error.RequestID, "ID")
	}
	return w.Code, text
}

// sample is how a route is called: {name} in its path is replaced, and {} in the body.
type sample struct{ query, body string }

func samples() map[string]sample {
	return map[string]sample{
		"POST /v1/machines": {"", `{"name":"new","app":"shop","network":"prod",` +
			`"config":{"image":"base"}}`},
		"POST /v1/drains":                           {"", `{"workers":["w1"]}`},
		"PUT /v1/images/{name}":                     {"?size_bytes=1073741824", "tar"},
		"POST /v1/tokens":                           {"", `{"name":"new","grants":[{"network":"prod","verb":"read"}]}`},
		"POST /v1/worker-tokens":                    {"", `{"worker":"w9"}`},
		"POST /v1/authority/rotate":                 {"", `{"step":"begin"}`},
		"POST /internal/v1/enroll":                  {"", `{"worker":"w9","token":"x"}`},
		"POST /internal/v1/join":                    {"", `{"worker":"w1","address":"fd00::3"}`},
		"GET /internal/v1/workers/{id}/assignments": {"?after=0", ""},
		"POST /internal/v1/workers/{id}/report":     {"", `{"worker":"w1","vms":[]}`},

		"PATCH /v1/quotas/{id}": {"", `{"limits":{"machines":1}}`},

		"PUT /v1/networks/{network}/apps/{app}/secrets/{name}": {"", `{"value":"x"}`},
	}
}

// fill puts the scene's ids into a route's path; missing: ids that nothing has.
func (s *scene) fill(path string, missing bool) string {
	id, ref, token := "w1", string(s.machine), "giraffe"
	switch {
	case strings.Contains(path, "/drains/"):
		id = string(s.drain)
	case strings.Contains(path, "/moves/"):
		id = string(s.move)
	case strings.Contains(path, "/worker-tokens/"):
		id = "token1"
	}
	if missing {
		id, ref, token = strings.Repeat("0", len(id)), strings.Repeat("0", len(ref)), "gnu"
	}
	if strings.Contains(path, "/tokens/") {
		ref = token
	}
	if strings.Contains(path, "/quotas/") {
		id = "network~prod"
	}
	name := "some"
	if strings.HasSuffix(path, "/rekey") {
		name = "prod"
	}
	return strings.NewReplacer("{ref}", ref, "{id}", id, "{name}", name, "{action}", "stop",
		"{network}", "prod", "{app}", "shop",
		"{port}", "8080", "{path...}", "x", "{rest...}", "of/a/newer/release").Replace(path)
}

// secrets are what an outsider must not read anywhere.
func (s *scene) secrets() []string {
	return []string{string(s.machine), "zebra", string(s.move), "giraffe"}
}

// cell asks for one route as one role, and says what came of it.
func (s *scene) cell(t *testing.T, route string, r role) string {
	method, path, _ := strings.Cut(route, " ")
	if method == "any" {
		method = "PATCH"
	}
	how := samples()[route]
	status, body := s.ask(t, method, s.fill(path, false)+how.query, how.body)
	nothing, none := s.ask(t, method, s.fill(path, true)+how.query, how.body)
	asked := s.fill(path, false)
	seen := false
	for _, secret := range s.secrets() {
		seen = seen || strings.Contains(strings.ReplaceAll(body, lastRef(asked), "REF"), secret)
	}
	if seen && r.outsider() {
		t.Errorf("%s as %s tells of what it may not see: %s", route, r.name, body)
	}
	switch {
	case status == http.StatusUnauthorized:
		return "401"
	case status == http.StatusForbidden:
		if strings.Contains(path, "{ref}") && nothing != status && r.outsider() {
			t.Errorf("%s as %s is refused otherwise than what isn't there: %d and %d", route,
				r.name, status, nothing)
		}
		return "403"
	case status == http.StatusNotFound:
		was, is := lastRef(asked), lastRef(s.fill(path, true))
		if nothing != status || strings.ReplaceAll(body, was, is) != none {
			t.Errorf("%s as %s: what is hidden is told in other words than what isn't there:\n%s%s",
				route, r.name, body, none)
		}
		return "hidden"
	case status >= http.StatusBadRequest && status != http.StatusConflict &&
		!strings.HasSuffix(path, "/exec"):
		t.Errorf("%s as %s: %d %s", route, r.name, status, body)
	case method == "GET" && r.outsider() && slices.Contains(listed(), path):
		return "empty"
	}
	return "yes"
}

// listed are the lists of which everybody sees a part.
func listed() []string {
	return []string{"/v1/machines", "/v1/networks", "/v1/tokens",
		"/v1/quotas"}
}

// lastRef returns the part of a path that names its object.
func lastRef(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) < 4 {
		return "nothing"
	}
	return parts[3]
}

// TestAuthorizationTable asks for every route as every role, and compares with the table that
// people read. A route without a row, and a row without a route, fail it.
func TestAuthorizationTable(t *testing.T) {
	worker := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer worker.Close()
	people := newSignedIn(t)
	all := newAPI(t, httpapitest.New(), nil)
	routes := all.Routes()
	inside := all.InsideRoutes()
	slices.Sort(inside)
	var out strings.Builder
	out.WriteString(tableHead)
	columns, line := []string{"call"}, []string{"---"}
	for _, r := range roles() {
		columns, line = append(columns, r.name), append(line, "---")
	}
	fmt.Fprintf(&out, "| %s |\n| %s |\n", strings.Join(columns, " | "), strings.Join(line, " | "))
	for _, route := range append(routes, inside...) {
		cells := []string{"`" + route + "`"}
		for _, r := range roles() {
			cells = append(cells, newScene(t, worker.URL, people, r).cell(t, route, r))
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
	}
	if *rewrite {
		if err := os.WriteFile(tablePath, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) == out.String() {
		return
	}
	is, should := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(is), len(should)) {
		var a, b string
		if i < len(is) {
			a = is[i]
		}
		if i < len(should) {
			b = should[i]
		}
		if a != b {
			t.Errorf("docs/authorization.md, line %d\nhas %s\nis  %s", i+1, b, a)
		}
	}
}

// TestInsideRoutesAreThePlatforms: a path of the platform that isn't in the table would be decided
// as one that nobody knows.
func TestInsideRoutesAreThePlatforms(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	known := newAPI(t, httpapitest.New(), nil).InsideRoutes()
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			pattern := strings.Replace(path, "{path}", "{path...}", 1)
			if slices.Contains(op.Tags, "platform") &&
				!slices.Contains(known, method+" "+pattern) &&
				!slices.Contains(known, "any "+pattern) {
				t.Errorf("%s %s is answered by the platform, and isn't in insideRoutes", method,
					path)
			}
		}
	}
}
