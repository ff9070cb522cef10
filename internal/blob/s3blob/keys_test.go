package s3blob_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// changing hands out a key, and the next one once it is asked for others.
type changing struct {
	mu    sync.Mutex
	now   s3blob.Key
	next  s3blob.Key
	asked int
}

func (c *changing) Key(context.Context) (s3blob.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, nil
}

func (c *changing) Others(_ context.Context, used s3blob.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if used.Same(c.now) {
		c.now = c.next
	}
	return !used.Same(c.now)
}

func (c *changing) Remedy(bool) string { return "ask somebody" }

// set makes a key the present one, and says which one comes after it.
func (c *changing) set(now, next s3blob.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.next, c.asked = now, next, 0
}

// TestNoRequestFailsWithAKeyThatIsGone: a request whose key the store has just been told to refuse
// is sent again with the next one, once, and what has a condition holds.
func TestNoRequestFailsWithAKeyThatIsGone(t *testing.T) {
	server := versitygwtest.StartWithAccounts(t)
	first := s3blob.Key{AccessKey: "first", SecretKey: "secret-of-the-first"}
	second := s3blob.Key{AccessKey: "second", SecretKey: "secret-of-the-second"}
	server.AddAccount(t, first.AccessKey, first.SecretKey)
	server.AddAccount(t, second.AccessKey, second.SecretKey)
	keys := &changing{now: first, next: first}
	store, err := blobs.OpenWith(t.Context(), server.URL(versitygwtest.Prefix()), keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	ctx := t.Context()
	tag, err := store.Put(ctx, "there", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	server.DeleteAccount(t, first.AccessKey)
	for what, request := range map[string]func() error{
		"put": func() error { _, err := store.Put(ctx, "put", []byte("x")); return err },
		"put if absent": func() error {
			_, err := store.PutIfAbsent(ctx, "new", []byte("x"))
			return err
		},
		"put if match": func() error {
			_, err := store.PutIfMatch(ctx, "there", []byte("y"), tag)
			return err
		},
		"get":    func() error { _, err := store.Get(ctx, "there", blob.All()); return err },
		"delete": func() error { return store.Delete(ctx, "none") },
		"list": func() error {
			n := 0
			err := store.List(ctx, "", "", func(blob.Entry) bool { n++; return true })
			if err == nil && n == 0 {
				err = fmt.Errorf("an empty listing")
			}
			return err
		},
	} {
		keys.set(first, second)
		if err := request(); err != nil || keys.asked != 1 {
			t.Errorf("%s: %v, asked %d times", what, err, keys.asked)
		}
		keys.set(first, first)
		if err := request(); !errs.Is(err, errs.Denied) || keys.asked != 1 ||
			!strings.Contains(errs.RemedyOf(err), "ask somebody") {
			t.Errorf("%s without another key: %v, remedy %q, asked %d times", what, err,
				errs.RemedyOf(err), keys.asked)
		}
	}
	keys.set(second, second)
	if _, err := store.PutIfAbsent(ctx, "new", nil); !errs.Is(err, errs.Conflict) ||
		keys.asked != 0 {
		t.Errorf("a condition that doesn't hold: %v, asked %d times", err, keys.asked)
	}
}

// TestAKeyIsNeverPrinted whichever way somebody tries.
func TestAKeyIsNeverPrinted(t *testing.T) {
	k := s3blob.Key{AccessKey: "the-id", SecretKey: "the-secret", SessionToken: "the-token"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		fmt.Fprintf(&log, verb, k)
	}
	for _, hidden := range []string{"the-secret", "the-token"} {
		if strings.Contains(log.String(), hidden) {
			t.Errorf("printed: %s", log.String())
		}
	}
}

// TestNoKeyAtAll: what Keys says is what a request says.
func TestNoKeyAtAll(t *testing.T) {
	u, err := url.Parse("s3://bucket/x?endpoint=http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s3blob.ParseURL(u, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys = noKeys{}
	s, err := s3blob.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, err = s.Get(t.Context(), "k", blob.All())
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "none yet") ||
		errs.RemedyOf(err) != "wait" {
		t.Errorf("kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
}

type noKeys struct{}

func (noKeys) Key(context.Context) (s3blob.Key, error) {
	return s3blob.Key{}, errs.New(errs.Unavailable, "none yet").WithRemedy("wait")
}
func (noKeys) Others(context.Context, s3blob.Key) bool { return false }
func (noKeys) Remedy(bool) string                      { return "" }
