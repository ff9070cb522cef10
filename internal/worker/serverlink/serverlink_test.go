package serverlink_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/worker/serverlink"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func link(t *testing.T, h http.HandlerFunc) *serverlink.Link {
	t.Helper()
	a := identitytest.Authority(t, nil)
	l, err := serverlink.New(identitytest.Serve(t, a.Self(), h)+"/",
		identity.ClientConfig(identitytest.Worker(t, a, "w1", 1), identity.IsServer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestCalls(t *testing.T) {
	var calls []string
	l := link(t, func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method+" "+r.URL.RequestURI())
		if peer := r.TLS.PeerCertificates; len(peer) == 0 ||
			peer[0].URIs[0].String() != "sluice://test/worker/w1?term=1" ||
			r.Header.Get("Date") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		switch r.URL.Path {
		case "/internal/v1/join":
			var req fleet.JoinRequest
			_ = json.NewDecoder(r.Body).Decode(&req)
			_ = json.NewEncoder(w).Encode(fleet.JoinAnswer{Number: 3,
				FleetID: "of " + string(req.Worker)})
		case "/internal/v1/workers/w1/assignments":
			_ = json.NewEncoder(w).Encode(fleet.AssignmentSet{Worker: "w1", Revision: 8})
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	a, err := l.Join(t.Context(), fleet.JoinRequest{Worker: "w1"})
	if err != nil || a.Number != 3 || a.FleetID != "of w1" {
		t.Fatalf("%+v, %v", a, err)
	}
	set, err := l.Assignments(t.Context(), "w1", 7)
	if err != nil || set.Revision != 8 {
		t.Fatalf("%+v, %v", set, err)
	}
	if err := l.Report(t.Context(), fleet.WorkerReport{Worker: "w1"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"POST /internal/v1/join", "GET /internal/v1/workers/w1/assignments?after=7",
		"POST /internal/v1/workers/w1/report"}
	for i := range want {
		if calls[i] != want[i] {
			t.Errorf("call %d was %s, want %s", i, calls[i], want[i])
		}
	}
}

func TestRefusalsKeepTheirKindAndRemedy(t *testing.T) {
	l := link(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(api.ErrorBody{Error: api.Error{Code: "conflict",
			Message: "name is taken", Cause: "by w2", Remedy: "choose another"}})
	})
	_, err := l.Join(t.Context(), fleet.JoinRequest{})
	if !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) != "choose another" ||
		err.Error() != "name is taken: by w2" {
		t.Fatalf("got %v", err)
	}
}

func TestWhatGetsNoAnswerIsUnavailable(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"broken connection": func(http.ResponseWriter,
			*http.Request) {
			panic(http.ErrAbortHandler)
		},
		"a proxy's error": func(w http.ResponseWriter,
			_ *http.Request) {
			http.Error(w, "<html>", http.StatusBadGateway)
		},
		"cut answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) },
	} {
		if _, err := link(t, h).Assignments(t.Context(), "w1", 0); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hang := link(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := hang.Assignments(ctx, "w1", 0); !errs.Is(err, errs.Unavailable) {
		t.Errorf("hang: %v", err)
	}
}

func TestBadServerURL(t *testing.T) {
	for _, bad := range []string{"", "fd00::1", "ftp://x", "https://", "http://127.0.0.1:1"} {
		if _, err := serverlink.New(bad, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestRedial: calls share a connection, and a call after Redial has another, also when the one
// before was in use.
func TestRedial(t *testing.T) {
	seen := make(chan string, 8)
	hold := make(chan struct{})
	l := link(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.RemoteAddr
		if r.URL.Query().Get("after") == "1" {
			<-hold
		}
		_ = json.NewEncoder(w).Encode(fleet.AssignmentSet{Worker: "w1"})
	})
	ask := func(after int64) string {
		t.Helper()
		if _, err := l.Assignments(t.Context(), "w1", after); err != nil {
			t.Error(err)
		}
		return <-seen
	}
	first := ask(0)
	if second := ask(0); second != first {
		t.Errorf("a second call came over a second connection")
	}
	over := make(chan error, 1)
	go func() {
		_, err := l.Assignments(t.Context(), "w1", 1)
		over <- err
	}()
	if held := <-seen; held != first {
		t.Errorf("the third call came over a second connection")
	}
	l.Redial()
	if next := ask(0); next == first {
		t.Error("the old connection is used")
	}
	close(hold)
	if err := <-over; err != nil {
		t.Errorf("the call that was under way: %v", err)
	}
	if next := ask(0); next == first {
		t.Error("the old connection is used once it is idle")
	}
}
