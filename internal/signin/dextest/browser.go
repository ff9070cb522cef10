package dextest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// As is who signs in, and how.
type As struct {
	connector string
	form      url.Values
	headers   http.Header
}

// Kilgore is kilgore@kilgore.trout of group authors. The sign-in can be renewed.
func Kilgore() As { return As{connector: "mock"} }

// Admin is admin@example.com, without groups, by name and password.
func Admin() As {
	return As{connector: "local",
		form: url.Values{"login": {"admin@example.com"}, "password": {"password"}}}
}

// Somebody is anybody of any groups. The sign-in can't be renewed.
func Somebody(email string, groups ...string) As {
	return As{connector: "proxy", headers: http.Header{"X-Remote-User": {email},
		"X-Remote-Group": {strings.Join(groups, ",")}}}
}

// SignIn does in a browser what somebody does who is shown a URL: it follows the issuer's pages, to
// where they end. It returns the text of that page.
func (d *Dex) SignIn(page string, who As) (string, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.CA)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	b := &browser{who: who, http: &http.Client{Jar: jar, Timeout: startWait,
		Transport: withHeaders{who.headers, &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots}}}}}
	return b.signIn(page)
}

// EnterCode does the same at the page of the device flow.
func (d *Dex) EnterCode(page, code string, who As) (string, error) {
	u, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	u.RawQuery = url.Values{"user_code": {code}}.Encode()
	return d.SignIn(u.String(), who)
}

// withHeaders is the proxy in front of the issuer that says who somebody is.
type withHeaders struct {
	headers http.Header
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w withHeaders) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range w.headers {
		r.Header[name] = values
	}
	return w.next.RoundTrip(r)
}

type browser struct {
	who  As
	http *http.Client
	at   *url.URL
}

var (
	links   = regexp.MustCompile(`href="([^"]*/auth/[^"]*)"`)
	actions = regexp.MustCompile(`<form[^>]*action="([^"]*)"`)
	hidden  = regexp.MustCompile(`<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"`)
)

func (b *browser) signIn(page string) (string, error) {
	text, err := b.read(b.http.Get(page))
	for range 10 {
		if err != nil {
			return text, err
		}
		next := ""
		for _, m := range links.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "/auth/"+b.who.connector) {
				next = m[1]
			}
		}
		action := actions.FindStringSubmatch(text)
		switch {
		case next != "":
			text, err = b.open(next, nil)
		case action != nil && strings.Contains(text, `name="password"`):
			text, err = b.open(action[1], b.who.form)
		case action != nil && strings.Contains(text, `name="user_code"`):
			text, err = b.open(action[1], valuesOf(text))
		default:
			return text, nil
		}
	}
	return text, errors.New("the issuer's pages have no end")
}

func valuesOf(text string) url.Values {
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(text, -1) {
		v.Set(m[1], m[2])
	}
	return v
}

// open follows a link, or sends a form.
func (b *browser) open(link string, form url.Values) (string, error) {
	to, err := b.at.Parse(html.UnescapeString(link))
	if err != nil {
		return "", err
	}
	if form == nil {
		return b.read(b.http.Get(to.String()))
	}
	return b.read(b.http.PostForm(to.String(), form))
}

func (b *browser) read(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.at = resp.Request.URL
	if err == nil && resp.StatusCode >= http.StatusInternalServerError {
		err = fmt.Errorf("%s: %s: %s", b.at, resp.Status, text)
	}
	return string(text), err
}
