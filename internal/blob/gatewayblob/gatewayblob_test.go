package gatewayblob_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobtest"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

func serve(t *testing.T, h http.Handler) *gatewayblob.Store {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return client(t, server.URL, "secret")
}

func client(t *testing.T, url, token string) *gatewayblob.Store {
	t.Helper()
	s, err := gatewayblob.New(gatewayblob.Config{BaseURL: url, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func allow(r *http.Request, _, _ string, _ int64) error {
	if jsonhttp.Bearer(r) != "secret" {
		return errs.New(errs.Denied, "bad token").WithRemedy("bind again")
	}
	return nil
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, blobtest.Target{Open: func(t *testing.T) blob.Store {
		return serve(t, gatewayhttp.New(memblob.New(), gatewayhttp.AuthorizerFunc(allow),
			gatewayhttp.Config{}))
	}})
}

// One prefix may be written, another only read; heads may not be replaced blindly.
func TestAuthorizerSeesEveryRequest(t *testing.T) {
	store := memblob.New()
	if _, err := store.Put(t.Context(), "disks/base/head", []byte("base")); err != nil {
		t.Fatal(err)
	}
	s := serve(t, gatewayhttp.New(store,
		gatewayhttp.AuthorizerFunc(func(r *http.Request, op, key string, size int64) error {
			switch {
			case op == gatewayhttp.OpGet && strings.HasPrefix(key, "disks/base/"):
				return nil
			case !strings.HasPrefix(key, "disks/mine/"):
				return errs.New(errs.Denied, "%s of %s", op, key).
					WithRemedy("stay below disks/mine/")
			case op == gatewayhttp.OpPut || size == int64(len("evil")):
				return errs.New(errs.Fenced, "%s of %d bytes", op, size)
			}
			return nil
		}), gatewayhttp.Config{MaxBody: 100}))
	ctx := t.Context()
	etag, err := s.PutIfAbsent(ctx, "disks/mine/head", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if o, err := s.Get(ctx, "disks/base/head", blob.All()); err != nil || string(o.Data) != "base" {
		t.Fatalf("%q %v", o.Data, err)
	}
	list := func(blob.Entry) bool { return true }
	_, put := s.Put(ctx, "disks/mine/head", nil)
	_, evil := s.PutIfMatch(ctx, "disks/mine/head", []byte("evil"), etag)
	_, other := s.PutIfAbsent(ctx, "disks/base/x", nil)
	_, big := s.PutIfAbsent(ctx, "disks/mine/big", make([]byte, 101))
	for what, c := range map[string]struct {
		err  error
		want errs.Kind
	}{
		"blind put": {put, errs.Fenced}, "evil body": {evil, errs.Fenced},
		"another's": {other, errs.Denied},
		"delete":    {s.Delete(ctx, "disks/base/head"), errs.Denied},
		"list all":  {s.List(ctx, "", "", list), errs.Denied},
		"list mine": {s.List(ctx, "disks/mine/", "", list), ""}, "too big": {big, errs.Invalid},
	} {
		if got := errs.KindOf(c.err); got != c.want {
			t.Errorf("%s: kind %q, want %q: %v", what, got, c.want, c.err)
		}
	}
	if got := errs.RemedyOf(other); got != "stay below disks/mine/" {
		t.Errorf("remedy %q", got)
	}
}

func TestBadToken(t *testing.T) {
	server := httptest.NewServer(gatewayhttp.New(memblob.New(), gatewayhttp.AuthorizerFunc(allow),
		gatewayhttp.Config{}))
	t.Cleanup(server.Close)
	_, err := client(t, server.URL, "wrong").Put(t.Context(), "k", nil)
	if !errs.Is(err, errs.Denied) || errs.RemedyOf(err) != "bind again" {
		t.Fatalf("%v", err)
	}
}

// cutter lets the store act, and then cuts the connection before or amid the answer.
type cutter struct {
	next  http.Handler
	after int // bytes of the answer's body that get through; -1 cuts before the status
}

func (c cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	c.next.ServeHTTP(rec, r)
	if c.after >= 0 {
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:min(c.after, rec.Body.Len())])
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

func TestCutConnectionIsUnavailable(t *testing.T) {
	store := memblob.New()
	for i := range 100 {
		if _, err := store.Put(t.Context(), fmt.Sprintf("many/%d", i),
			make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	metered := decorate.Meter(store, nil)
	whole := gatewayhttp.New(metered, gatewayhttp.AuthorizerFunc(allow), gatewayhttp.Config{})
	before, amid := serve(t, cutter{whole, -1}), serve(t, cutter{whole, 500})
	ctx := t.Context()
	_, put := before.PutIfAbsent(ctx, "k", []byte("mine"))
	_, get := before.Get(ctx, "k", blob.All())
	_, half := amid.Get(ctx, "many/1", blob.All())
	seen := 0
	list := amid.List(ctx, "many/", "", func(blob.Entry) bool { seen++; return true })
	for what, err := range map[string]error{"put": put, "get": get, "half a get": half,
		"list": list} {
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s over a cut connection: %v", what, err)
		}
	}
	if seen == 0 || seen >= 100 {
		t.Errorf("the cut list has %d of 100 entries", seen)
	}
	if o, err := store.Get(ctx, "k", blob.All()); err != nil || string(o.Data) != "mine" {
		t.Errorf("the write whose answer was lost: %q %v", o.Data, err)
	}
	if n := metered.Snapshot()[decorate.OpPutIfAbsent].Requests; n != 1 {
		t.Errorf("the conditional write reached the store %d times", n)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = client(t, "http://"+addr, "").Get(t.Context(), "k", blob.All())
	if !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
}

// A worker's gateway has a link-local address; the zone must survive the way into the dialer.
func TestAddressWithZone(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1%lo]:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(gatewayhttp.New(memblob.New(),
		gatewayhttp.AuthorizerFunc(allow), gatewayhttp.Config{}))
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	s := client(t, fmt.Sprintf("http://[::1%%25lo]:%d", l.Addr().(*net.TCPAddr).Port), "secret")
	if _, err := s.Put(t.Context(), "a/b c", nil); err != nil {
		t.Fatal(err)
	}
}

func TestStoreErrorsKeepTheirKind(t *testing.T) {
	for _, kind := range []errs.Kind{errs.Invalid, errs.NotFound, errs.Conflict, errs.Denied,
		errs.Unavailable, errs.Exhausted, errs.Fenced, errs.Internal} {
		s := serve(t, gatewayhttp.New(memblob.New(),
			gatewayhttp.AuthorizerFunc(func(*http.Request, string, string, int64) error {
				return errs.Wrap(kind, errors.New("cause"), "message").WithRemedy("remedy")
			}), gatewayhttp.Config{}))
		_, err := s.Get(t.Context(), "k", blob.All())
		if !errs.Is(err, kind) || errs.RemedyOf(err) != "remedy" ||
			err.Error() != "message: cause" {
			t.Errorf("kind %q came over as %q: %v", kind, errs.KindOf(err), err)
		}
	}
}

func TestBadBaseURL(t *testing.T) {
	for _, u := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := gatewayblob.New(gatewayblob.Config{BaseURL: u}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// TestThrottlingPassesThrough: a store that asks the gateway for fewer requests asks those behind
// it, and so does a proxy in between that speaks HTTP only.
func TestThrottlingPassesThrough(t *testing.T) {
	slow := decorate.Intercept(memblob.New(), func(context.Context, decorate.Op, string) error {
		return errs.Wrap(errs.Unavailable,
			&blob.Throttled{After: 1500 * time.Millisecond}, "slow down")
	})
	gateway := serve(t, gatewayhttp.New(slow, gatewayhttp.AuthorizerFunc(allow),
		gatewayhttp.Config{}))
	_, err := gateway.PutIfAbsent(t.Context(), "k", []byte("x"))
	if after, ok := blob.ThrottledFor(err); !ok || after != 1500*time.Millisecond ||
		!errs.Is(err, errs.Unavailable) {
		t.Errorf("gateway: %v %v: %v", ok, after, err)
	}
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	_, err = proxy.Get(t.Context(), "k", blob.All())
	if after, ok := blob.ThrottledFor(err); !ok || after != 3*time.Second ||
		!errs.Is(err, errs.Unavailable) {
		t.Errorf("proxy: %v %v: %v", ok, after, err)
	}
}

// TestTheGatewayTellsTheStoresTime: of a write, also of one that fails. What the way and the
// gateway take is not in it. Of a gateway that can't be reached the store had nothing.
func TestTheGatewayTellsTheStoresTime(t *testing.T) {
	const atStore, before = 80 * time.Millisecond, 50 * time.Millisecond
	fails := errs.New(errs.Unavailable, "no")
	for name, inner := range map[string]blob.Store{"done": memblob.New(),
		"failed": decorate.Intercept(memblob.New(),
			func(context.Context, decorate.Op, string) error { return fails })} {
		gateway := gatewayhttp.New(decorate.Latency(inner, atStore),
			gatewayhttp.AuthorizerFunc(allow), gatewayhttp.Config{})
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(before)
			gateway.ServeHTTP(w, r)
		}))
		var a blob.Attempt
		began := time.Now()
		_, err := s.PutIfAbsent(blob.WithAttempt(t.Context(), &a), "k", []byte("x"))
		if took := time.Since(began); (err != nil) != (name == "failed") || !a.Told ||
			a.AtStore < atStore || a.AtStore > took-before {
			t.Errorf("%s: of %v the store had %v (told: %v), %v", name, took, a.AtStore, a.Told,
				err)
		}
	}
	var a blob.Attempt
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, err := client(t, gone.URL, "secret").PutIfAbsent(blob.WithAttempt(t.Context(), &a), "k", nil)
	if err == nil || !a.Told || a.AtStore != 0 {
		t.Errorf("a gateway that isn't there: %v (told: %v), %v", a.AtStore, a.Told, err)
	}
	for text, want := range map[string]time.Duration{"store;dur=1.5": 1500 * time.Microsecond,
		"store;dur=0.000": 1, "store;dur=-1": 0, "store;dur=NaN": 0, "store;dur=1e300": 0,
		"cache;dur=1": 0, "": 0} {
		got, ok := gatewayhttp.StoreTime(http.Header{"Server-Timing": {text}})
		if got != want || ok != (want > 0) {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}

// TestOnlyTheGatewayIsBelieved: what else answers in its place is neither success nor a word on
// what is stored.
func TestOnlyTheGatewayIsBelieved(t *testing.T) {
	page := func(status int, header http.Header) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				w.Header().Set("ETag", `"page"`)
				_, _ = w.Write([]byte("<html>Sign in</html>"))
				return
			}
			for name, values := range header {
				w.Header()[name] = values
			}
			w.WriteHeader(status)
			if status != http.StatusNoContent && status != http.StatusNotModified {
				_, _ = w.Write([]byte("<html>no</html>"))
			}
		}
	}
	for _, status := range []int{200, 201, 202, 204, 301, 302, 303, 304, 307, 308, 400, 401, 403,
		404, 405, 407, 409, 412, 413, 500, 501, 502, 503, 504, 507} {
		server := httptest.NewServer(page(status, http.Header{"Location": {"/login"}}))
		s := client(t, server.URL, "secret")
		for what, err := range map[string]error{
			"get":           second(s.Get(t.Context(), "k", blob.All())),
			"get nothing":   second(s.Get(t.Context(), "k", blob.Range{})),
			"put":           second(s.Put(t.Context(), "k", []byte("x"))),
			"put if absent": second(s.PutIfAbsent(t.Context(), "k", []byte("x"))),
			"put if match":  second(s.PutIfMatch(t.Context(), "k", []byte("x"), "e")),
			"list":          s.List(t.Context(), "", "", func(blob.Entry) bool { return true }),
		} {
			if !errs.Is(err, errs.Unavailable) {
				t.Errorf("%s, answered %d: kind %q: %v", what, status, errs.KindOf(err), err)
			}
		}
		// which is what the gateway says
		if err := s.Delete(t.Context(), "k"); !errs.Is(err, errs.Unavailable) &&
			status != http.StatusNoContent {
			t.Errorf("delete, answered %d: kind %q: %v", status, errs.KindOf(err), err)
		}
		server.Close()
	}
}

func second[T any](_ T, err error) error { return err }
