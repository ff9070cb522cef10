package httpapi_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
)

// TestASessionFindsAConnection: after the first, a command's session has a connection to the worker
// that is open already, and none to a worker that was revoked meanwhile.
func TestASessionFindsAConnection(t *testing.T) {
	a := identitytest.Authority(t, nil)
	spares, sessions := make(chan string, 8), make(chan string, 8)
	served := make(chan struct{}, 8) // a session, and what comes after it
	worker := identitytest.Serve(t, identitytest.Worker(t, a, "w1", 1), http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/healthz") {
				spares <- r.RemoteAddr
				return
			}
			sessions <- r.RemoteAddr
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			_ = conn.Write(r.Context(), websocket.MessageBinary, []byte{guestapi.FrameExit, 0})
			_ = conn.Close(websocket.StatusNormalClosure, "")
		}))
	f := httpapitest.New()
	newMachine(t, f, "web-1")
	f.SetWorkerURL(worker)
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	var dialled atomic.Int32
	deps.Dial = func(w fleet.WorkerAPI) (*tls.Config, time.Time) {
		dialled.Add(1)
		return identity.ClientConfig(a.Self(), identity.IsWorker(string(w.Worker))), time.Time{}
	}
	h, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken}, deps)
	if err != nil {
		t.Fatal(err)
	}
	url := identitytest.Serve(t, a.Self(), http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			served <- struct{}{}
		}))
	run := func() error {
		conn, _, err := websocket.Dial(t.Context(), url+"/v1/machines/web-1/exec?cmd=true",
			&websocket.DialOptions{HTTPClient: identitytest.Client(t, nil, nil),
				HTTPHeader: http.Header{"Authorization": {"Bearer " + operatorToken}}})
		if err != nil {
			return err
		}
		_, _, err = conn.Read(t.Context())
		_ = conn.CloseNow()
		<-served
		return err
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	<-sessions
	for range 3 {
		spare := <-spares
		if err := run(); err != nil {
			t.Fatal(err)
		}
		if at := <-sessions; at != spare {
			t.Errorf("the session came from %s, and not over what was open from %s", at, spare)
		}
	}
	<-spares
	if _, err := f.RevokeWorker(context.Background(), "w1", "test"); err != nil {
		t.Fatal(err)
	}
	if err := run(); err == nil || len(sessions) != 0 {
		t.Errorf("a revoked worker got %d sessions over what was open: %v", len(sessions), err)
	}
}
