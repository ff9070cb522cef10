package footholds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Thing is what a network has, by all of its names.
type Thing struct {
	Network, App string
	Machine      string // its id
	Name         string
	Move         string // one of the machine's
	Token        string // the name of one that counts in the network
	TokenID      string
}

// Secrets are the names by which a thing must not be told of.
func (t Thing) Secrets() []string {
	return []string{t.Network, t.App, t.Machine, t.Name, t.Move, t.Token, t.TokenID}
}

// Tenant is the foothold of who has a token of one network, and wants to get at another's.
type Tenant struct {
	Host    string                                  // of the API, as in its URL
	Dial    func(context.Context) (net.Conn, error) `json:"-"`
	Token   string                                  // an admin's of the own network
	Own     Thing
	Foreign Thing
	// Secrets is what no answer may have unless the question had it.
	Secrets []string
	Routes  []string // "METHOD /path" of all calls, with {names} in them
}

// Attempts returns all of them.
func (t *Tenant) Attempts() []Attempt {
	return slices.Concat(t.routes(), t.lists(), t.grants(), t.paths(), t.headers(), t.framing())
}

// answer is what came back on one connection.
type answer struct {
	status int // of the first answer
	body   string
	all    string // whatever came, head included
}

// say sends bytes as they are, on a connection of its own, and returns all that comes back until
// the server closes it.
func (t *Tenant) say(ctx context.Context, text string) (answer, error) {
	c, err := t.Dial(ctx)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return answer{}, err
		}
	}
	// A server that has refused may have closed before all was sent.
	_, writeErr := io.WriteString(c, text)
	raw, err := io.ReadAll(io.LimitReader(c, 8<<20))
	if err != nil && len(raw) == 0 {
		return answer{}, fmt.Errorf("no answer: %w", errors.Join(err, writeErr))
	}
	a := answer{all: string(raw)}
	if _, err := fmt.Sscanf(a.all, "HTTP/1.1 %d", &a.status); err != nil {
		return a, fmt.Errorf("not an answer: %.200q", a.all)
	}
	_, a.body, _ = strings.Cut(a.all, "\r\n\r\n")
	return a, nil
}

// ask sends one request with the tenant's token.
func (t *Tenant) ask(ctx context.Context, method, target, body string,
	headers ...string) (answer, error) {
	return t.say(ctx, t.text(method, target, body, append(headers,
		"Authorization: Bearer "+t.Token, "Connection: close")...))
}

func (t *Tenant) text(method, target, body string, headers ...string) string {
	all := append([]string{method + " " + target + " HTTP/1.1", "Host: " + t.Host}, headers...)
	if body != "" || method != http.MethodGet {
		all = append(all, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(all, "\r\n") + "\r\n\r\n" + body
}

// leaks returns what an answer tells that the question didn't.
func (t *Tenant) leaks(asked, told string) error {
	for _, s := range t.Secrets {
		if strings.Contains(told, s) && !strings.Contains(asked, s) {
			return fmt.Errorf("the answer tells of %q: %.300q", s, told)
		}
	}
	return nil
}

// refused reports what is wrong with an answer that should be a refusal.
func (t *Tenant) refused(asked string, a answer, err error) error {
	if err != nil {
		return err
	}
	if a.status < 300 || a.status >= 500 && a.status != http.StatusNotImplemented &&
		a.status != http.StatusHTTPVersionNotSupported {
		return fmt.Errorf("answered with %d: %.300q", a.status, a.body)
	}
	return t.leaks(asked, a.all)
}

// masked is an answer without what differs in each: its request's id, and the names asked for.
func masked(a answer, names ...string) string {
	body := a.body
	if at := strings.Index(body, `"request_id":"`); at >= 0 {
		from := at + len(`"request_id":"`)
		if end := strings.IndexByte(body[from:], '"'); end >= 0 {
			body = body[:from] + body[from+end:]
		}
	}
	for _, n := range names {
		body = strings.ReplaceAll(body, n, "NAME")
	}
	return fmt.Sprint(a.status, " ", body)
}

// names are the ways in which a path may name a thing, each beside one that nothing has.
type naming struct{ how, is, none string }

func (t *Tenant) machineNames() []naming {
	f := t.Foreign
	none := strings.Repeat("0", len(f.Machine))
	return []naming{{"id", f.Machine, none}, {"name", f.Name, "no-such-machine"},
		{"app and name", f.App + "~" + f.Name, f.App + "~no-such-machine"},
		{"escaped id", fmt.Sprintf("%%%02x", f.Machine[0]) + f.Machine[1:],
			fmt.Sprintf("%%%02x", none[0]) + none[1:]},
		{"part of an id", f.Machine[:len(f.Machine)-2], none[:len(none)-2]},
		{"id in capitals", strings.ToUpper(f.Machine), strings.Repeat("0", len(f.Machine))}}
}

// routes asks for each call about the foreign thing, by each of its names.
func (t *Tenant) routes() []Attempt {
	var all []Attempt
	for _, route := range t.Routes {
		method, path, _ := strings.Cut(route, " ")
		names := []naming{{"", "", ""}}
		switch {
		case strings.HasPrefix(path, "/v1/machines/{ref}"):
			names = t.machineNames()
		case strings.HasPrefix(path, "/v1/moves/"):
			names = []naming{{"id", t.Foreign.Move, "no-such-move"}}
		case strings.HasPrefix(path, "/v1/tokens/"):
			names = []naming{{"name", t.Foreign.Token, "no-such-token"},
				{"id", t.Foreign.TokenID, strings.Repeat("0", len(t.Foreign.TokenID))}}
		case !t.forOthers(route):
			continue
		}
		for _, n := range names {
			all = append(all, t.route(method, path, n))
		}
	}
	return all
}

// forOthers reports whether a call that names no thing of a network is for others than tenants.
func (t *Tenant) forOthers(route string) bool {
	_, path, _ := strings.Cut(route, " ")
	for _, p := range []string{"/healthz", "/readyz", "/v1/health", "/v1/openapi.yaml", // everybody
		"/v1/authority.pem", "/v1/signin", "/v1/whoami", // the same
		"/internal/v1/enroll", // has a token of its own
		"/v1/images"} {        // everybody with a token reads it
		if path == p {
			return false
		}
	}
	own := strings.Contains(path, "{network}") || path == "/v1/networks/{name}/rekey"
	return own || !slices.Contains([]string{"GET /v1/machines", "GET /v1/tokens",
		"GET /v1/networks", "GET /v1/quotas"}, route)
}

func (t *Tenant) route(method, path string, n naming) Attempt {
	fill := func(name string) string {
		last := "SOME"
		if strings.HasSuffix(path, "/rekey") {
			last = t.Foreign.Network
		}
		if strings.HasPrefix(path, "/v1/moves/") || strings.HasPrefix(path, "/v1/tokens/") {
			last = name
		}
		return strings.NewReplacer("{ref}", name, "{id}", last, "{name}", last,
			"{network}", t.Foreign.Network, "{app}", t.Foreign.App, "{action}", "stop",
			"{port}", "8080", "{path...}", "", "{path}", "", "{rest...}", "unknown").Replace(path)
	}
	if method == "any" {
		method = http.MethodGet
	}
	title := strings.TrimSpace(method + " " + path + " " + n.how)
	body := t.bodyOf(method, path)
	return Attempt{title, func(ctx context.Context) error {
		is := fill(n.is)
		a, err := t.ask(ctx, method, is, body)
		if err := t.refused(is+body, a, err); err != nil || n.none == "" {
			return err
		}
		none := fill(n.none)
		b, err := t.ask(ctx, method, none, body)
		if err != nil {
			return err
		}
		got, want := masked(a, n.is, plain(n.is)), masked(b, n.none, plain(n.none))
		if got != want {
			return fmt.Errorf("what is there is told in other words than what isn't: %q and %q",
				got, want)
		}
		return nil
	}}
}

// plain is a name as errors tell it: without escapes, and with app and name apart.
func plain(name string) string {
	if is, err := url.PathUnescape(name); err == nil {
		name = is
	}
	return strings.Replace(name, "~", "/", 1)
}

// bodyOf is what a call needs in order to be understood.
func (t *Tenant) bodyOf(method, path string) string {
	switch method + " " + path {
	case "POST /v1/machines":
		return t.create(t.Foreign.Network)
	case "POST /v1/tokens":
		return t.grant(t.Foreign.Network, "read")
	case "POST /v1/drains":
		return `{"workers":["w1"]}`
	case "POST /v1/worker-tokens":
		return `{"worker":"evil"}`
	case "PUT /v1/networks/{network}/apps/{app}/secrets/{name}":
		return `{"value":"x"}`
	}
	return ""
}

func (t *Tenant) create(network string) string {
	return `{"name":"evil","app":"evil","network":"` + network + `","config":{"image":"test"}}`
}

func (t *Tenant) grant(network, verb string) string {
	return fmt.Sprintf(`{"name":"evil-%d","grants":[{"network":"%s","verb":"%s"}]}`,
		time.Now().UnixNano(), network, verb)
}
