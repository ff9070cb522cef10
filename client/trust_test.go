package client_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
)

// TestTheServerIsKnownByItsCertificate: of the fleet's authority and for the server, and nobody
// else gets the token; each refusal says what to do.
func TestTheServerIsKnownByItsCertificate(t *testing.T) {
	h, err := httpapi.New(httpapi.Config{OperatorToken: token},
		httpapi.DepsOf(httpapitest.New(), slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	a, foreign := identitytest.Authority(t, nil), identitytest.Authority(t, nil)
	old := identitytest.Authority(t, func() time.Time { return time.Now().AddDate(0, -3, 0) })
	asked := 0
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		h.ServeHTTP(w, r)
	})
	ask := func(url string, ca []byte) error {
		t.Helper()
		c, err := client.New(url, token, client.WithCA(ca))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Server(t.Context())
		return err
	}
	right := identitytest.Serve(t, a.Self(), counted)
	if err := ask(right, a.PEM()); err != nil || asked != 1 {
		t.Fatalf("%d calls, %v", asked, err)
	}
	if err := ask(right, append(foreign.PEM(), a.PEM()...)); err != nil {
		t.Errorf("one of two authorities: %v", err)
	}
	asked = 0
	plain := httptest.NewServer(counted)
	t.Cleanup(plain.Close)
	for name, c := range map[string]struct {
		url         string
		ca          []byte
		says, tries string
	}{
		"another fleet's": {identitytest.Serve(t, foreign.Self(), counted), a.PEM(),
			"is not of this fleet", "--ca-file"},
		"a worker's": {identitytest.Serve(t, identitytest.Worker(t, a, "w1", 1), counted),
			a.PEM(), "not of its server", "SLUICE_URL"},
		"expired": {identitytest.Serve(t, old.Self(), counted), old.PEM(), "expired",
			"clocks"},
		"no authority given": {right, nil, "is not known by its certificate", "--ca-file"},
		"plain HTTP": {strings.Replace(plain.URL, "http://", "https://", 1), a.PEM(),
			"speaks plain HTTP", "http://"},
	} {
		err := ask(c.url, c.ca)
		if !client.IsCode(err, "unavailable") || !strings.Contains(err.Error(), c.says) ||
			!strings.Contains(remedy(err), c.tries) {
			t.Errorf("%s: %v; try: %s", name, err, remedy(err))
		}
	}
	if asked != 0 {
		t.Errorf("%d calls reached who was not the server", asked)
	}
	err = ask(strings.Replace(right, "https://", "http://", 1), a.PEM())
	if err == nil || !strings.Contains(remedy(err), "https://") {
		t.Errorf("plain HTTP to TLS: %v; try: %s", err, remedy(err))
	}
	for _, bad := range []string{"http://192.0.2.1:7500", "http://fleet.example", "ftp://x"} {
		if _, err := client.New(bad, token); !client.IsCode(err, "invalid") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := client.New(right, token, client.WithCA([]byte("x"))); !client.IsCode(err,
		"invalid") {
		t.Errorf("an authority that is none: %v", err)
	}
}

func remedy(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Remedy
	}
	return ""
}
