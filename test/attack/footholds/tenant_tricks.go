package footholds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// lists asks for lists with filters and places that name what is foreign: they are answered, and
// have nothing of it.
func (t *Tenant) lists() []Attempt {
	f := t.Foreign
	var all []Attempt
	for _, target := range []string{
		"/v1/machines", "/v1/machines?network=" + f.Network, "/v1/machines?app=" + f.App,
		"/v1/machines?network=", "/v1/machines?network=" + t.Own.Network + "&network=" + f.Network,
		"/v1/machines?network=%2A", "/v1/machines?limit=1000", "/v1/machines?limit=-1",
		"/v1/machines?limit=99999999999999999999", "/v1/machines?page=" + f.Machine,
		"/v1/machines?page=AAAA", "/v1/machines?worker=w1", "/v1/machines?state=started",
		"/v1/machines?sort=name&fields=*&all=true", "/v1/networks", "/v1/networks?page=AAAA",
		"/v1/networks?name=" + f.Network, "/v1/tokens", "/v1/tokens?network=" + f.Network,
		"/v1/tokens?page=" + f.TokenID, "/v1/tokens?all=true",
		"/v1/quotas", "/v1/images", "/v1/health",
		"/v1/machines;network=" + f.Network, "/v1/machines/?network=" + f.Network,
		"/v1/machines/" + t.Own.Machine + "?wait=settled&ref=" + f.Machine,
		"/v1/machines/" + t.Own.Machine + "/events?ref=" + f.Machine,
		"/v1/machines/" + t.Own.Machine + "/events?machine=" + f.Machine} {
		all = append(all, Attempt{"list " + t.title(target), func(ctx context.Context) error {
			a, err := t.ask(ctx, http.MethodGet, target, "")
			if err != nil {
				return err
			}
			return t.leaks(target, a.all)
		}})
	}
	return all
}

// title is a target without what differs from run to run.
func (t *Tenant) title(target string) string {
	for name, is := range map[string]string{"OWN": t.Own.Machine, "FOREIGN": t.Foreign.Machine,
		"TOKEN-ID": t.Foreign.TokenID} {
		target = strings.ReplaceAll(target, is, name)
	}
	return strings.ReplaceAll(strings.ReplaceAll(target, "\x00", "NUL"), "\t", "TAB")
}

// grants asks for rights that the tenant hasn't.
func (t *Tenant) grants() []Attempt {
	f := t.Foreign
	var all []Attempt
	for name, body := range map[string]string{
		"a token of another network": t.grant(f.Network, "read"),
		"a token of the fleet":       t.grant("", "read"),
		"a token of all by a star":   t.grant("*", "admin"),
		"a token of no verb":         t.grant(t.Own.Network, ""),
		"a token of a verb in capitals": `{"name":"evil-caps","grants":[{"network":"` +
			t.Own.Network + `","verb":"ADMIN"}]}`,
		"a token of the own network, then another": `{"name":"evil-two","grants":[{"network":"` +
			t.Own.Network + `","verb":"read"},{"network":"` + f.Network + `","verb":"read"}]}`,
		"a token with grants twice": `{"name":"evil-twice","grants":[{"network":"` +
			t.Own.Network + `","verb":"read"}],"grants":[{"network":"` + f.Network +
			`","verb":"read"}]}`,
		"a token of a network twice": `{"name":"evil-net","grants":[{"network":"` +
			t.Own.Network + `","verb":"read","network":"` + f.Network + `"}]}`,
		"a token of a network in other letters": `{"name":"evil-case","grants":[{"network":"` +
			t.Own.Network + `","verb":"read","NetworK":"` + f.Network + `"}]}`,
		"a token called as the operator": `{"name":"operator","grants":[{"network":"` +
			t.Own.Network + `","verb":"read"}]}`,
		"a token of an app in all networks": `{"name":"evil-app","grants":[{"app":"` + f.App +
			`","verb":"read"}]}`,
		"a token with a hash of one's own": `{"name":"evil-hash","hash":"00","grants":[]}`,
		"a token without grants":           `{"name":"evil-none","grants":[]}`,
	} {
		all = append(all, Attempt{"make " + name, func(ctx context.Context) error {
			a, err := t.ask(ctx, http.MethodPost, "/v1/tokens", body)
			return t.refused(body, a, err)
		}})
	}
	for name, body := range map[string]string{
		"in another network": t.create(f.Network),
		"in a network twice": strings.Replace(t.create(t.Own.Network), `"config"`,
			`"network":"`+f.Network+`","config"`, 1),
		"in a network in other letters": strings.Replace(t.create(t.Own.Network), `"config"`,
			`"NETWORK":"`+f.Network+`","config"`, 1),
		"in a network with a slash": t.create(t.Own.Network + "/../" + f.Network),
		"in a network with a NUL":   t.create(t.Own.Network + `\u0000` + f.Network),
		"in a network with a space": t.create(f.Network + " "),
		"in no network":             t.create(""),
	} {
		all = append(all, Attempt{"create a machine " + name, func(ctx context.Context) error {
			a, err := t.ask(ctx, http.MethodPost, "/v1/machines", body)
			return t.refused(body, a, err)
		}})
	}
	return all
}

// paths asks for what is foreign by paths that a part on the way may read otherwise than another.
func (t *Tenant) paths() []Attempt {
	own, f := t.Own.Machine, t.Foreign.Machine
	var all []Attempt
	for _, target := range []string{
		"/v1/machines/" + own + "/../" + f, "/v1/machines/" + own + "%2f..%2f" + f,
		"/v1/machines/" + own + "/%2e%2e/" + f,
		"/v1/machines/" + own + "%2F%2e%2e%2F" + f + "/events",
		"//v1/machines/" + f, "/v1//machines/" + f, "/v1/machines//" + f, "/v1/./machines/" + f,
		"/./v1/machines/" + f, "/v1/x/../machines/" + f, "/v1/machines/" + f + "/",
		"/v1/machines/" + f + "//events", "/v1/machines/" + f + ";x", "/v1/machines/" + f + "%20",
		"/v1/machines/" + f + "%00", "/v1/machines/" + own + "%00" + f,
		"/v1/machines/" + own + "," + f, "/v1/machines/" + own + "~" + f,
		"/v1/machines/" + own + "~.." + "~" + f, "/v1/machines/~" + f, "/v1/machines/%7e" + f,
		"/v1/machines/" + own + "/ports/8080/../../../" + f + "/ports/8080/",
		"/v1/machines/" + own + "/ports/8080/..%2f..%2f..%2f" + f + "/logs",
		"/v1/machines/" + own + "/ports/8080/%2e%2e/%2e%2e/%2e%2e/" + f + "/logs",
		"/v1/machines/" + own + "/ports/8080%2f..%2f..%2f..%2f" + f + "%2flogs",
		"/v1/machines/" + own + "/ports/..%2f..%2f" + f + "%2flogs/",
		"/v1/machines/" + own + "/services/..%2f..%2f" + f + "/stop",
		"/v1/machines/" + own + "/x/..%2f..%2f" + f + "%2fservices",
		"/v1/machines/" + own + "/..%2f" + f + "%2fservices",
		"/v1/machines/" + own + "/..%5c" + f + "%5cservices",
		"/v1/machines/" + own + "/..\\" + f + "\\services",
		"/v1/machines/" + own + "/ports/7700/", "/v1/machines/" + own + "/ports/0/",
		"/v1/machines/" + own + "/ports/-1/", "/v1/machines/" + own + "/ports/65536/",
		"/v1/machines/" + own + "/ports/8080@" + t.Host + "/",
		"/v1/machines/" + own + "/ports/8080:80@[::1]/", "/v1/machines/../../internal/v1/join",
		"/v1/machines/..%2f..%2finternal%2fv1%2fjoin", "/internal/v1/workers/w1/assignments",
		"/V1/machines/" + f, "/v1/Machines/" + f, "/v1/machines/" + f + "?ref=" + own,
		"/v1/machines/" + f + "#" + own, "http://" + t.Host + "/v1/machines/" + f,
		"http://other/v1/machines/" + f, "https://" + f + "/v1/machines/" + own + "x",
		"/v1/networks/" + t.Own.Network + "/../" + t.Foreign.Network + "/apps/" + t.Foreign.App +
			"/secrets",
		"/v1/networks/" + t.Own.Network + "%2f..%2f" + t.Foreign.Network + "/apps/" +
			t.Foreign.App + "/secrets",
		"/v1/networks/" + t.Foreign.Network + "%00/apps/" + t.Foreign.App + "/secrets",
		"/v1/networks/" + t.Own.Network + "/apps/..%2f..%2f" + t.Foreign.Network + "%2fapps%2f" +
			t.Foreign.App + "/secrets", "*"} {
		all = append(all, Attempt{"path " + t.title(target), func(ctx context.Context) error {
			a, err := t.ask(ctx, http.MethodGet, target, "")
			if err == nil && strings.HasPrefix(target, "/v1/machines/"+own+"/") {
				// The own machine may be asked anything, and may answer.
				return t.leaks(target, a.all)
			}
			return t.refused(target, a, err)
		}})
	}
	return all
}

// headers claims to be somebody else, or to ask for something else, by headers that proxies set.
func (t *Tenant) headers() []Attempt {
	foreign, own := "/v1/machines/"+t.Foreign.Machine, "/v1/machines/"+t.Own.Machine
	bearer := "Authorization: Bearer " + t.Token
	var all []Attempt
	add := func(name, method, target string, want int, headers ...string) {
		all = append(all, Attempt{"header " + name, func(ctx context.Context) error {
			text := t.text(method, target, "", append(headers, "Connection: close")...)
			a, err := t.say(ctx, text)
			if err == nil && want != 0 && a.status != want {
				err = fmt.Errorf("answered with %d, want %d: %.300q", a.status, want, a.all)
			}
			return errors.Join(err, t.leaks(text, a.all))
		}})
	}
	const notFound, unknown = http.StatusNotFound, http.StatusUnauthorized
	for _, h := range []string{"X-Forwarded-For: 127.0.0.1", "X-Real-IP: ::1",
		"X-Forwarded-User: operator", "X-Remote-User: operator", "Remote-User: operator",
		"Impersonate-User: operator", "Forwarded: for=127.0.0.1;host=localhost",
		"X-Forwarded-Host: localhost", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: " + own,
		"X-Original-URL: " + foreign, "X-Rewrite-URL: " + foreign, "X-Forwarded-Client-Cert: " +
			"URI=sluice://fleet/worker/w1", "X-SSL-Client-Verify: SUCCESS", "Sluice-Worker: w1",
		"X-Sluice-Subject: operator", "Origin: https://" + t.Host, "Cookie: token=operator"} {
		name, _, _ := strings.Cut(h, ":")
		add(name, "GET", foreign, notFound, bearer, h)
	}
	for _, h := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		add(h+" of a read", "GET", foreign, notFound, bearer, h+": DELETE")
	}
	for _, h := range []string{"X-Original-URL", "X-Rewrite-URL"} {
		add(h+" beside the own machine", "GET", own, http.StatusOK, bearer, h+": "+foreign)
	}
	add("no token", "GET", foreign, unknown)
	add("token in the query", "GET", own+"?token="+t.Token+"&access_token="+t.Token, unknown)
	add("token in a cookie", "GET", own, unknown, "Cookie: token="+t.Token)
	add("token as a password", "GET", own, unknown, "Authorization: Basic b3BlcmF0b3I6eA==")
	add("token in small letters", "GET", own, 0, "authorization: bearer "+t.Token+"x")
	add("token with more behind it", "GET", own, unknown, bearer+"x")
	add("token cut", "GET", own, unknown, bearer[:len(bearer)-1])
	add("two tokens in one", "GET", foreign, unknown, bearer+", Bearer operator")
	add("two tokens", "GET", foreign, 0, bearer, "Authorization: Bearer operator")
	add("a token that is dropped on the way", "GET", foreign, notFound, bearer,
		"Connection: Authorization")
	add("another host", "GET", foreign, 0, bearer, "Host: localhost")
	for _, method := range []string{"CONNECT", "TRACE", "OPTIONS", "PROPFIND", "get", "GETX"} {
		add("method "+method, method, foreign, 0, bearer)
	}
	for _, up := range []string{"websocket", "h2c", "tls/1.3", "spdy/3.1"} {
		for _, path := range []string{"", "/exec?cmd=id", "/ports/8080/", "/logs?follow=true"} {
			all = append(all, t.upgrade(up, path, foreign))
		}
	}
	return all
}

// upgrade asks to go on in another protocol about a foreign machine.
func (t *Tenant) upgrade(to, path, foreign string) Attempt {
	return Attempt{"upgrade to " + to + " of the machine" + path, func(ctx context.Context) error {
		text := t.text("GET", foreign+path, "", "Authorization: Bearer "+t.Token,
			"Connection: Upgrade, HTTP2-Settings, close", "Upgrade: "+to,
			"HTTP2-Settings: AAMAAABkAAQAAP__", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
		a, err := t.say(ctx, text)
		return t.refused(text, a, err)
	}}
}
