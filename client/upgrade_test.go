package client_test

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
)

// TestACommandUsesTheOpenConnection: a client that has called before pays for no other handshake.
func TestACommandUsesTheOpenConnection(t *testing.T) {
	h, err := httpapi.New(httpapi.Config{OperatorToken: token},
		httpapi.DepsOf(httpapitest.New(), slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	a := identitytest.Authority(t, nil)
	var from, upgrades []string
	url := identitytest.Serve(t, a.Self(), http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			from = append(from, r.RemoteAddr)
			if r.Header.Get("Upgrade") != "" {
				upgrades = append(upgrades, r.Header.Get("Upgrade"))
			}
			h.ServeHTTP(w, r)
		}))
	c, err := client.New(url, token, client.WithCA(a.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Server(t.Context()); err != nil {
		t.Fatal(err)
	}
	// There is no such machine: the session is refused, and the connection has served it.
	_, err = c.RunExec(t.Context(), "none", client.Exec{Cmd: []string{"true"}})
	if !client.IsCode(err, "not_found") {
		t.Fatalf("%v", err)
	}
	if len(from) != 2 || from[0] != from[1] || len(upgrades) != 1 || upgrades[0] != "websocket" {
		t.Errorf("calls came from %q, with upgrades %q", from, upgrades)
	}
}
