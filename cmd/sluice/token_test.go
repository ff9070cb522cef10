package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
)

// TestTokensByTheCommandLine: a token is printed alone on stdout, once, and counts for what it was
// made.
func TestTokensByTheCommandLine(t *testing.T) {
	c := story(t)
	stdout, stderr, code := c.run("token", "create", "ci", "--grant", "use@prod/shop", "--grant",
		"read@/blog", "--ttl", "1h", "--new")
	text := strings.TrimSpace(stdout)
	if code != 0 || !strings.HasPrefix(text, "slt_") || strings.ContainsAny(text, " \n") ||
		!strings.Contains(stderr, "use@prod/shop read@/blog") || strings.Contains(stderr, text) {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	list := c.must("token", "list")
	if !strings.Contains(list, "use@prod/shop read@/blog") || strings.Contains(list, text) {
		t.Errorf("list: %s", list)
	}
	var shown api.Token
	if err := json.Unmarshal([]byte(c.must("token", "show", "ci", "--json")),
		&shown); err != nil || shown.Name != "ci" || shown.Token != "" {
		t.Errorf("%+v, %v", shown, err)
	}
	operator := c.env["SLUICE_TOKEN"]
	c.env["SLUICE_TOKEN"] = text
	if _, stderr, code := c.run("worker", "list"); code == 0 ||
		!strings.Contains(stderr, "this needs read on the whole fleet") {
		t.Errorf("what it isn't for: %d %s", code, stderr)
	}
	c.env["SLUICE_TOKEN"] = operator
	c.must("token", "revoke", "ci")
	if list := c.must("token", "list"); strings.Contains(list, "ci") {
		t.Errorf("after revoke: %s", list)
	}
	if list := c.must("token", "list", "--all"); !strings.Contains(list, "revoked") {
		t.Errorf("all after revoke: %s", list)
	}
	for _, args := range [][]string{{"x"}, {"x", "--network", "a"}, {"x", "--grant", "@a"},
		{"x", "--grant", "use@"}, {"x", "--verb", "read", "--ttl", "-1h"}, {}} {
		if _, stderr, code := c.run(append([]string{"token", "create"}, args...)...); code !=
			exitUsage {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
	}
	if _, _, code := c.run("token", "revoke", "c"); code == 0 {
		t.Error("a prefix is a name")
	}
}

// TestOperatorTokensAreReadAgain while the server runs; a file without any changes nothing.
func TestOperatorTokensAreReadAgain(t *testing.T) {
	const first, second = "the-first-operator-token", "the-second-operator-token"
	file := filepath.Join(t.TempDir(), "operator.token")
	write := func(text string) {
		t.Helper()
		if err := atomicfile.Write(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first + "\n")
	a, err := httpapi.New(httpapi.Config{OperatorToken: first},
		httpapi.DepsOf(httpapitest.New(), slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	counts := func(token string) bool {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/workers", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w.Code == http.StatusOK
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	tick := make(chan time.Time)
	g.Go(func() error {
		return operatorTokens(file, a).follow(ctx, slog.New(slog.NewJSONHandler(&log, nil)), tick)
	})
	// Each tick is taken when what the one before it led to is done.
	again := func() { tick <- time.Now(); tick <- time.Now() }
	write("# both\n" + first + "\n" + second + "\n")
	again()
	if !counts(first) || !counts(second) {
		t.Error("one of two tokens doesn't count")
	}
	write("short\n")
	again()
	if !counts(second) {
		t.Error("a file without a token has locked everybody out")
	}
	write(second)
	again()
	if counts(first) || !counts(second) {
		t.Error("the token that was taken out counts, or the other doesn't")
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "file not used; what it had before counts"); n != 1 ||
		strings.Contains(log.String(), second) {
		t.Errorf("told of it %d times: %s", n, log.String())
	}
}

func TestMomentsOfTheAuditLog(t *testing.T) {
	for text, want := range map[string]time.Duration{"24h": 24 * time.Hour, "0s": 0} {
		at, err := parseMoment("since", text)
		if ago := time.Since(at); err != nil || ago < want || ago > want+time.Minute {
			t.Errorf("%s: %v, %v", text, at, err)
		}
	}
	at, err := parseMoment("since", "2026-01-31T12:00:00Z")
	if err != nil || !at.Equal(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%v, %v", at, err)
	}
	for _, bad := range []string{"yesterday", "-1h", "2026-01-31"} {
		if _, err := parseMoment("since", bad); err == nil {
			t.Errorf("%s is a time", bad)
		}
	}
}
