// Package identitytest has a fleet's authority and the identities that it made, for tests.
package identitytest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/identity"
)

// Fleet is the id of every authority's fleet here.
const Fleet = "test"

// Authority returns a new authority. now is nil for time.Now.
func Authority(t testing.TB, now func() time.Time) *identity.Authority {
	t.Helper()
	a, err := identity.OpenAuthority(identity.AuthorityConfig{Fleet: Fleet, Dir: t.TempDir(),
		Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Worker returns an identity of a worker, as a join makes it.
func Worker(t testing.TB, a *identity.Authority, name string, term int64) *identity.Held {
	t.Helper()
	h, err := identity.Join(t.Context(), t.TempDir(), identity.NewToken(a.Hash()),
		func(_ context.Context, request []byte) (identity.Answer, error) {
			return a.IssueWorker(name, term, request)
		})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Serve serves h with own's certificate, and returns the URL.
func Serve(t testing.TB, own identity.Own, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener = tls.NewListener(s.Listener, identity.ServerConfig(own))
	// Refusals of clients are what tests look at.
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Start()
	t.Cleanup(s.Close)
	return "https://" + s.Listener.Addr().String()
}

// Client returns a client that shows own's certificate, and takes whom accept takes. own may be
// nil: then it shows none, and takes everybody.
func Client(t testing.TB, own identity.Own, accept func(identity.Name) error) *http.Client {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // who answers is not the question
	if own != nil {
		cfg = identity.ClientConfig(own, accept)
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
