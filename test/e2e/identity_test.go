package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/devfleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestAStolenWorker has a worker's key and certificate, as who broke into its host does: it speaks
// for that worker only, gets into no other, and is worth nothing once the worker is revoked. The
// worker's machine goes on elsewhere; a new token lets the worker in again.
func TestAStolenWorker(t *testing.T) {
	// Nobody waits for the silence of a worker that is shut out.
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 0,
		Args: []string{"--worker-down", "10m"}})
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	m := f.Create("m", "green", "w2", fleettest.LedgerConfig())
	if _, err := f.Ledger(t.Context(), m.ID, "append"); err != nil {
		t.Fatal(err)
	}
	thief, err := identity.Load(f.CertificateDir("w2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	try := func(url string, accept func(identity.Name) error) string {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: identity.ClientConfig(thief, accept)}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return fmt.Sprint(resp.StatusCode)
	}
	feed := s.BridgeURL + "/internal/v1/workers/"
	w1 := "https://[" + addressOf(t, s, "w1") + "]:7600"
	for what, c := range map[string]struct {
		url    string
		accept func(identity.Name) error
		want   string
	}{
		"itself":         {feed + "w2/assignments", identity.IsServer, "200"},
		"another worker": {feed + "w1/assignments", identity.IsServer, "403"},
		"an operator":    {s.BridgeURL + "/v1/machines", identity.IsServer, "403"},
		"the server, to w1": {w1 + "/machines/" + m.ID + "/services", identity.IsWorker("w1"),
			"403"},
		"w1's own list": {w1 + "/debug/vms", identity.IsWorker("w1"), "403"},
	} {
		if got := try(c.url, c.accept); got != c.want {
			t.Errorf("as %s: %s, want %s", what, got, c.want)
		}
	}
	if _, err := f.RevokeWorker(t.Context(), "w2", "stolen"); err != nil {
		t.Fatal(err)
	}
	if got := try(feed+"w2/assignments", identity.IsServer); got != "403" {
		t.Errorf("once it is revoked: %s", got)
	}
	f.Eventually(2*time.Minute, func() error {
		v, err := f.Machine(t.Context(), m.ID)
		if err == nil && (v.Worker != "w1" || !v.Healthy) {
			err = fmt.Errorf("the machine is on %s, %s", v.Worker, v.State)
		}
		return err
	})
	if n, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil || n == 0 {
		t.Errorf("%d entries are left: %v", n, err)
	}
	stolenKey := tunnelKey(t, f, "w2")
	letIn(t, f, "w2")
	if tunnelKey(t, f, "w2") == stolenKey {
		t.Error("the worker is back with the key of its tunnel that was stolen")
	}
	if got := try(feed+"w2/assignments", identity.IsServer); got != "403" {
		t.Errorf("the stolen certificate, once the worker is back: %s", got)
	}
	log, err := os.ReadFile(filepath.Join(f.Dir, "log", "w2.log"))
	if err != nil || !strings.Contains(string(log), "sluice worker token create --name w2") {
		t.Errorf("the worker's log doesn't say what to do: %v", err)
	}
}

// letIn gives a revoked worker a new token, as docs/operations.md says, and waits until it is
// ready.
func letIn(t *testing.T, f *fleettest.Fleet, worker string) {
	t.Helper()
	token, err := f.CreateJoinToken(t.Context(), worker, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(f.CertificateDir(worker)), "join.token")
	if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.KillDaemon(t.Context(), worker),
		f.Fleet.Start(t.Context(), worker)); err != nil {
		t.Fatal(err)
	}
	f.Eventually(2*time.Minute, func() error {
		w, err := f.Worker(t.Context(), worker)
		if err == nil && w.State != "ready" {
			err = fmt.Errorf("the worker is %s", w.State)
		}
		return err
	})
}

func addressOf(t *testing.T, s devfleet.State, worker string) string {
	t.Helper()
	for _, h := range s.Workers {
		if h.Name == worker {
			return h.Address
		}
	}
	t.Fatalf("there is no worker %s", worker)
	return ""
}
