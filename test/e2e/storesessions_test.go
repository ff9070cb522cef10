package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3role"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/storekeys"
	"github.com/sluice-platform/sluice/internal/worker/storekey"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// shortSTS gives sessions that the S3 server forgets after a life: each is an account of its own,
// which is deleted then. It narrows nothing: the policy is only taken.
type shortSTS struct {
	t      *testing.T
	server *versitygwtest.Server
	life   time.Duration

	mu    sync.Mutex
	given []string // accounts
	away  bool
	ends  sync.WaitGroup
}

func (s *shortSTS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.ParseForm(); err != nil || s.away || r.PostForm.Get("Policy") == "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	id, secret := "session-"+strings.ToLower(rand.Text())[:12], rand.Text()
	s.server.AddAccount(s.t, id, secret)
	s.given = append(s.given, id)
	ends := time.Now().Add(s.life)
	s.ends.Go(func() {
		time.Sleep(time.Until(ends))
		s.server.DeleteAccount(s.t, id)
	})
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey>
<SessionToken></SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		id, secret, ends.UTC().Format(time.RFC3339Nano))
}

func (s *shortSTS) setAway(away bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	return len(s.given)
}

// TestStoreSessionsThatEnd: a worker writes on through sessions that end, without one failure.
// While there is no next one it says so in time, is refused once the last has ended, and goes on by
// itself when there is one again.
func TestStoreSessionsThatEnd(t *testing.T) {
	server := versitygwtest.StartWithAccounts(t)
	sts := &shortSTS{t: t, server: server, life: 6 * time.Second}
	endpoint := httptest.NewServer(sts)
	t.Cleanup(func() { endpoint.Close(); sts.ends.Wait() })
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+versitygwtest.AccessKey+
		"\naws_secret_access_key = "+versitygwtest.SecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	source, err := storekeys.New(t.Context(), storekeys.Config{Store: server.URL("pool"),
		File: file, Log: quiet, Role: s3role.Role{ARN: "arn:aws:iam::1:role/w",
			Endpoint: endpoint.URL, Term: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	holder := storekey.New(storekey.Config{Own: blobs.HostKeys(), OnlyServers: true, Log: quiet,
		Ask: func(ctx context.Context, have int64) (fleet.StoreCredentials, error) {
			return source.StoreCredentials(ctx, "w1", have)
		}})
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = holder.Run(ctx) }) // it ends with ctx alone
	t.Cleanup(func() { cancel(); loop.Wait() })
	store, err := blobs.OpenWith(ctx, server.URL("pool"), holder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	writes := 0
	write := func() error {
		writes++
		_, err := store.PutIfAbsent(ctx, fmt.Sprintf("disks/a/%d", writes), []byte("x"))
		return err
	}
	for until := time.Now().Add(4 * sts.life); time.Now().Before(until); {
		if err := write(); err != nil {
			t.Fatalf("write %d, with %+v: %v", writes, holder.Report(), err)
		}
	}
	given := sts.setAway(true)
	if given < 4 || given > 12 {
		t.Errorf("%d sessions in four lives", given)
	}
	t.Logf("%d writes with %d sessions, and none failed", writes, given)
	ended := holder.Report().Expires
	for {
		if _, trouble := holder.Trouble(); trouble != nil {
			t.Logf("%s before the end: %v", time.Until(ended).Round(time.Millisecond), trouble)
			break
		}
		if time.Now().After(ended) {
			t.Fatal("it was not told before the last session had ended")
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(time.Minute)
	for err = write(); err == nil && time.Now().Before(deadline); err = write() {
		time.Sleep(10 * time.Millisecond)
	}
	if !errs.Is(err, errs.Denied) || time.Now().Before(ended) {
		t.Errorf("without a session: %v", err)
	}
	sts.setAway(false)
	for err = write(); err != nil && time.Now().Before(deadline); err = write() {
		time.Sleep(10 * time.Millisecond)
	}
	if _, trouble := holder.Trouble(); err != nil || trouble != nil {
		t.Errorf("STS is back: %v, %v", err, trouble)
	}
}
