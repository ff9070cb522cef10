package httpapi_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// boundedAPI is an API that bounds what a token may ask.
func boundedAPI(t *testing.T, b httpapi.TokenBounds) (*httpapitest.Fleet, *httptest.Server) {
	t.Helper()
	f := httpapitest.New()
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken, PerToken: b},
		httpapi.DepsOf(f, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return f, s
}

// TestATokenAsksForNoMoreThanItMay: it is told so, and neither others nor operators notice.
func TestATokenAsksForNoMoreThanItMay(t *testing.T) {
	const calls = 0.001 // a second: none comes back during the test
	f, s := boundedAPI(t, httpapi.TokenBounds{Calls: calls})
	greedy := addToken(t, f, "greedy", []fleet.Grant{{Verb: "read"}})
	other := addToken(t, f, "other", []fleet.Grant{{Verb: "read"}})
	ask := func(token string) (int, http.Header, string) {
		status, header, body := request(t, s, "GET", "/v1/machines", token, "")
		return status, header, string(body)
	}
	if status, _, body := ask(greedy); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	status, header, body := ask(greedy)
	if status != http.StatusTooManyRequests || header.Get("Retry-After") == "" ||
		!strings.Contains(body, "greedy") || !strings.Contains(body, `"remedy"`) {
		t.Errorf("%d %v %s", status, header, body)
	}
	for _, token := range []string{other, operatorToken, operatorToken, operatorToken} {
		if status, _, body := ask(token); status != http.StatusOK {
			t.Errorf("another: %d %s", status, body)
		}
	}
}

// TestATokenHoldsNoMoreOpenThanItMay: a watch counts until it ends.
func TestATokenHoldsNoMoreOpenThanItMay(t *testing.T) {
	f, s := boundedAPI(t, httpapi.TokenBounds{Open: 1})
	token := addToken(t, f, "watcher", []fleet.Grant{{Verb: "admin"}})
	_, _, body := request(t, s, "POST", "/v1/drains", token, `{"workers":["w1"]}`)
	id := between(t, string(body), `"id":"`, `"`)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/drains/"+id+"/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	if status, _, body := request(t, s, "GET", "/v1/machines", token, ""); status !=
		http.StatusTooManyRequests {
		t.Errorf("beside a watch: %d %s", status, body)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	for { // the server notices in its own time
		status, _, body := request(t, s, "GET", "/v1/machines", token, "")
		if status == http.StatusOK {
			return
		}
		if status != http.StatusTooManyRequests || t.Context().Err() != nil {
			t.Fatalf("%d %s", status, body)
		}
	}
}

// between returns what is in a text between two others.
func between(t *testing.T, text, before, after string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, before)
	found, _, ended := strings.Cut(rest, after)
	if !ok || !ended {
		t.Fatalf("no %q…%q in %s", before, after, text)
	}
	return found
}
