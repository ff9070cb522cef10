package storekey_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/storekey"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a control plane that gives what a test wants.
type server struct {
	mu      sync.Mutex
	answer  fleet.StoreCredentials
	err     error
	changed chan struct{}
	asked   []int64 // have, of each question
}

func newServer() *server { return &server{changed: make(chan struct{})} }

func (s *server) set(a fleet.StoreCredentials, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.err = a, err
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) questions() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int64(nil), s.asked...)
}

func (s *server) ask(ctx context.Context, have int64) (fleet.StoreCredentials, error) {
	s.mu.Lock()
	s.asked = append(s.asked, have)
	s.mu.Unlock()
	for {
		s.mu.Lock()
		answer, err, changed := s.answer, s.err, s.changed
		s.mu.Unlock()
		if err != nil || answer.Generation != have {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, errs.Wrap(errs.Unavailable, ctx.Err(), "poll")
		case <-changed:
		}
	}
}

// memory is what outlives a Holder.
type memory struct {
	mu   sync.Mutex
	kept []byte
	ttl  time.Duration
}

func (m *memory) Keep(b []byte, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept, m.ttl = b, ttl
	return nil
}

func (m *memory) Recall() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil {
		return nil, errs.New(errs.NotFound, "nothing")
	}
	return m.kept, nil
}

func (m *memory) Forget() error { return m.Keep(nil, 0) }

type host struct{}

func (host) Key(context.Context) (s3blob.Key, error) {
	return s3blob.Key{AccessKey: "own", SecretKey: "of-the-host"}, nil
}
func (host) Others(context.Context, s3blob.Key) bool { return false }
func (host) Remedy(bool) string                      { return "look at the host" }

// start runs a Holder until the test ends, or stop is called.
func start(t *testing.T, s *server, kept storekey.Kept,
	change ...func(*storekey.Config)) (h *storekey.Holder, stop func()) {
	t.Helper()
	cfg := storekey.Config{Ask: s.ask, Own: host{}, Kept: kept,
		Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	h = storekey.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return h, stop
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func idOf(t *testing.T, h *storekey.Holder) string {
	t.Helper()
	k, err := h.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k.AccessKey
}

func gives(generation int64, id string) fleet.StoreCredentials {
	return fleet.StoreCredentials{Generation: generation, AccessKey: id, SecretKey: "secret-" + id}
}

// TestWhoseCredentials are used: what the worker is told comes first, then the server's.
func TestWhoseCredentials(t *testing.T) {
	own := func(c *storekey.Config) { c.OnlyOwn = true }
	servers := func(c *storekey.Config) { c.OnlyServers = true }
	none := func(*storekey.Config) {}
	gone := fleet.StoreCredentials{Generation: 1, Own: true}
	for name, c := range map[string]struct {
		change func(*storekey.Config)
		answer fleet.StoreCredentials
		err    error
		want   string // id, or a part of the error
		source string
	}{
		"the server's":                 {none, gives(1, "a"), nil, "a", "server"},
		"own, whatever the server has": {own, gives(1, "a"), nil, "own", "own"},
		"the server gives none":        {none, gone, nil, "own", "own"},
		"an earlier server": {none, fleet.StoreCredentials{},
			errs.New(errs.NotFound, "no such call"), "own", "own"},
		"only the server's, which gives none": {servers, gone, nil,
			"the server gives workers no credentials", "own"},
		"a server that is away": {none, fleet.StoreCredentials{},
			errs.New(errs.Unavailable, "away"), "which only the server has", "server"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			s.set(c.answer, c.err)
			h, _ := start(t, s, nil, c.change)
			k, err := h.Key(t.Context())
			got := k.AccessKey
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) || h.Report().Source != c.source ||
				err != nil && errs.RemedyOf(err) == "" {
				t.Errorf("%q, remedy %q, report %+v", got, errs.RemedyOf(err), h.Report())
			}
			if own := c.want == "own"; own && c.err == nil && c.answer.AccessKey != "" &&
				len(s.questions()) > 0 {
				t.Error("the server was asked")
			}
		})
	}
}

// TestTheNextGenerationIsTaken without anybody asking for it, and reported.
func TestTheNextGenerationIsTaken(t *testing.T) {
	s := newServer()
	s.set(gives(1, "a"), nil)
	h, _ := start(t, s, nil)
	if got := idOf(t, h); got != "a" {
		t.Fatal(got)
	}
	s.set(gives(2, "b"), nil)
	eventually(t, "it has the next", func() bool { return idOf(t, h) == "b" })
	if r := h.Report(); r.Generation != 2 || r.KeyID != "b" || !r.Expires.IsZero() {
		t.Errorf("%+v", r)
	}
	s.set(fleet.StoreCredentials{}, errs.New(errs.Unavailable, "away"))
	eventually(t, "it asks", func() bool { return len(s.questions()) > 3 })
	if got := idOf(t, h); got != "b" {
		t.Errorf("without the server: %s", got)
	}
	if _, err := h.Trouble(); err != nil {
		t.Errorf("credentials that never expire are trouble: %v", err)
	}
}

// TestOthersAreAskedFor at once when the store refuses what is held, by all that wait with one
// question; and not over and over while there are none.
func TestOthersAreAskedFor(t *testing.T) {
	s := newServer()
	s.set(gives(1, "a"), nil)
	h, _ := start(t, s, nil)
	used, err := h.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for the next", func() bool { return len(s.questions()) == 2 })
	if h.Others(t.Context(), used) {
		t.Error("there are others, and nobody has brought any")
	}
	for range 50 {
		h.Others(t.Context(), used)
	}
	if n := len(s.questions()); n > 6 {
		t.Errorf("%d questions, though the answer doesn't change", n)
	}
	s.set(gives(1, "b"), nil) // as a session in place of one that was taken away
	var found sync.WaitGroup
	for range 20 {
		found.Go(func() {
			eventually(t, "others are found", func() bool { return h.Others(t.Context(), used) })
		})
	}
	found.Wait()
	if got := idOf(t, h); got != "b" {
		t.Error(got)
	}
}

// TestSessionsAreRenewedInTime, and it is told in time when they can't be.
func TestSessionsAreRenewedInTime(t *testing.T) {
	s := newServer()
	a := gives(1, "a")
	a.TTL = 4 * time.Second
	s.set(a, nil)
	h, _ := start(t, s, nil)
	if got := idOf(t, h); got != "a" {
		t.Fatal(got)
	}
	first := h.Report().Expires
	b := gives(1, "b") // of the same generation: only who asks anew gets it
	b.TTL = 4 * time.Second
	s.set(b, nil)
	eventually(t, "it is renewed", func() bool { return idOf(t, h) == "b" })
	if !time.Now().Before(first) {
		t.Error("it was renewed when it had expired")
	}
	if _, err := h.Trouble(); err != nil {
		t.Error(err)
	}
	s.set(fleet.StoreCredentials{}, errs.New(errs.Unavailable, "STS is away"))
	ends := h.Report().Expires
	eventually(t, "it is told", func() bool {
		_, err := h.Trouble()
		return err != nil && strings.Contains(err.Error(), "STS is away")
	})
	if !time.Now().Before(ends) {
		t.Error("it was told when they had expired")
	}
	if got := idOf(t, h); got != "b" {
		t.Errorf("what is held is used to its end: %s", got)
	}
	s.set(b, nil)
	eventually(t, "it is well again", func() bool { _, err := h.Trouble(); return err == nil })
}

// TestTheNextDaemon has what this one had, before the server answers; but for one that is shut out.
func TestTheNextDaemon(t *testing.T) {
	for name, kept := range map[string]storekey.Kept{"in memory": &memory{},
		"in the kernel's keyring": inKernel(t)} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			a := gives(7, "a")
			a.SessionToken, a.TTL = "token", time.Hour
			s.set(a, nil)
			h, stop := start(t, s, kept)
			before, err := h.Key(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is kept", func() bool { _, err := kept.Recall(); return err == nil })
			stop()
			s.set(fleet.StoreCredentials{}, errs.New(errs.Unavailable, "away"))
			h, stop = start(t, s, kept)
			got, err := h.Key(t.Context())
			if err != nil || !got.Same(before) || !got.Expires.Equal(before.Expires) {
				t.Errorf("%v, %v", got.Expires, err)
			}
			if r := h.Report(); !r.Kept || r.Generation != 7 {
				t.Errorf("%+v", r)
			}
			s.set(fleet.StoreCredentials{}, errs.New(errs.Denied, "revoked"))
			eventually(t, "it is forgotten", func() bool {
				_, err := kept.Recall()
				return err != nil
			})
			stop()
			h, _ = start(t, s, kept)
			if _, err := h.Key(t.Context()); err == nil {
				t.Error("one that is shut out has credentials after a restart")
			}
		})
	}
}

// inKernel is a keyring of this test's own.
func inKernel(t *testing.T) *keyring.Keyring {
	t.Helper()
	k := keyring.New(t.TempDir())
	t.Cleanup(func() {
		if err := k.Forget(); err != nil {
			t.Error(err)
		}
	})
	return k
}
