package jsonhttp_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

type question struct {
	N int `json:"n"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		body string
		mode jsonhttp.Strictness
		n    int
		says string // "": it is right
	}{
		{`{"n":1}`, jsonhttp.Strict, 1, ""},
		{"", jsonhttp.Strict, 7, ""},
		{`{"n":1,"m":2}`, jsonhttp.Lenient, 1, ""},
		{`{"n":1,"m":2}`, jsonhttp.Strict, 0, `"m"`},
		{`{"n":1}{"n":2}`, jsonhttp.Strict, 0, "more than one"},
		{`{"n":`, jsonhttp.Lenient, 0, "not what this call takes"},
		{`{"n":1}` + strings.Repeat(" ", 100), jsonhttp.Lenient, 0, "larger than 64 bytes"},
		{`{"n":1}, more`, jsonhttp.Lenient, 0, "not what this call takes"},
		{`{"n":1` + strings.Repeat(" ", 100) + `}`, jsonhttp.Lenient, 0, "larger than 64 bytes"},
	} {
		q := question{N: 7}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/",
			strings.NewReader(c.body))
		err := jsonhttp.Decode(httptest.NewRecorder(), r, 64, c.mode, &q)
		switch {
		case c.says == "" && (err != nil || q.N != c.n):
			t.Errorf("%q: %d, %v", c.body, q.N, err)
		case c.says != "" && (!errs.Is(err, errs.Invalid) ||
			!strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: kind %q: %v", c.body, errs.KindOf(err), err)
		}
	}
}

func TestAnswering(t *testing.T) {
	h := jsonhttp.Answering(func(_ context.Context, q question) (any, error) {
		switch q.N {
		case 0:
			return nil, errs.New(errs.NotFound, "none").WithRemedy("ask for another")
		case 1:
			return make(chan int), nil // no JSON
		}
		return question{N: q.N + 1}, nil
	})
	ask := func(body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/",
			strings.NewReader(body)))
		return w
	}
	if w := ask(`{"n":2}`); w.Code != http.StatusOK || w.Body.String() != "{\"n\":3}\n" ||
		w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	for body, want := range map[string]struct {
		status int
		kind   errs.Kind
	}{`{}`: {404, errs.NotFound}, `{`: {400, errs.Invalid}, `{"n":1}`: {500, errs.Internal}} {
		w := ask(body)
		var e errs.Wire
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != want.status ||
			e.Kind != want.kind || e.Message == "" {
			t.Errorf("%s: %d %q: %v", body, w.Code, w.Body, err)
		}
	}
}

func TestTokens(t *testing.T) {
	for header, want := range map[string]string{"Bearer secret": "secret",
		"bearer  secret ": "secret", "Basic secret": "", "secret": "", "": ""} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		if got := jsonhttp.Bearer(r); got != want {
			t.Errorf("%q: %q", header, got)
		}
	}
	if !jsonhttp.SameToken("a", "a") || jsonhttp.SameToken("a", "b") || jsonhttp.SameToken("", "") {
		t.Error("tokens are mistaken for others")
	}
}
