package etcdstate_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/state/statetest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func start(t *testing.T, cfg etcdstate.Config) *etcdstate.Embedded {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	e, err := etcdstate.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func restore(t *testing.T, snapshot []byte) state.Store {
	t.Helper()
	dir := t.TempDir()
	if err := etcdstate.Restore(dir, bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	return start(t, etcdstate.Config{Dir: dir}).Store()
}

func TestConformanceEmbedded(t *testing.T) {
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		s := start(t, etcdstate.Config{}).Store()
		return statetest.Harness{Store: s, Compact: s.Compact, Restore: restore}
	})
}

// TestConformanceOverTheWire also proves that a prefix hides the rest of a shared etcd.
func TestConformanceOverTheWire(t *testing.T) {
	const prefix = "fleet-a/"
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		e := start(t, etcdstate.Config{ClientURL: "http://127.0.0.1:0"})
		for _, key := range []string{"a", "fleet-", "fleet-a", "fleet-a0", "fleet-b/a", "zz"} {
			if _, err := e.Store().Commit(t.Context(),
				state.Txn{Then: []state.Op{{Key: key}}}); err != nil {
				t.Fatal(err)
			}
		}
		s := dial(t, e.Endpoint(), prefix)
		return statetest.Harness{Store: s, Compact: s.Compact,
			Restore: func(t *testing.T, snapshot []byte) state.Store {
				dir := t.TempDir()
				if err := etcdstate.Restore(dir, bytes.NewReader(snapshot)); err != nil {
					t.Fatal(err)
				}
				return dial(t, start(t, etcdstate.Config{Dir: dir,
					ClientURL: "http://127.0.0.1:0"}).Endpoint(), prefix)
			}}
	})
}

func dial(t *testing.T, endpoint, prefix string) *etcdstate.Store {
	t.Helper()
	s, err := etcdstate.Dial(t.Context(), etcdstate.DialConfig{Endpoints: []string{endpoint},
		Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSecondOpenOfADirectoryIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	start(t, etcdstate.Config{Dir: dir})
	begin := time.Now()
	_, err := etcdstate.Start(t.Context(), etcdstate.Config{Dir: dir})
	if !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) == "" {
		t.Fatalf("second start: %v, remedy %q", err, errs.RemedyOf(err))
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the refusal took %s", took)
	}
	if msg := err.Error(); !strings.Contains(msg, dir) || !strings.Contains(msg, "process ") {
		t.Errorf("the error names neither directory nor process: %s", msg)
	}
	if err := etcdstate.Restore(dir, strings.NewReader("")); !errs.Is(err, errs.Conflict) {
		t.Errorf("restore over a running state: %v", err)
	}
}

func TestRestartKeepsStateAndRevisions(t *testing.T) {
	dir := t.TempDir()
	var rev int64
	for i := range 3 {
		begin := time.Now()
		e := start(t, etcdstate.Config{Dir: dir})
		t.Logf("start %d took %s", i, time.Since(begin))
		if i > 0 {
			if kv, err := e.Store().Get(t.Context(), "a"); err != nil || kv.ModRevision != rev {
				t.Fatalf("after restart: %+v, %v; want revision %d", kv, err, rev)
			}
		}
		next, err := e.Store().Commit(t.Context(), state.Txn{
			If:   []state.Cond{{Key: "a", ModRevision: rev}},
			Then: []state.Op{{Key: "a", Value: []byte{byte(i)}}},
		})
		if err != nil || next <= rev {
			t.Fatalf("revision %d after %d, %v", next, rev, err)
		}
		rev = next
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if err := e.Wait(t.Context()); err == nil {
			t.Error("a closed member is said to go on")
		}
	}
}

func TestClientURLIsLoopbackOnly(t *testing.T) {
	for _, u := range []string{"http://0.0.0.0:2379", "http://[::]:0", "http://example.com:1",
		"https://127.0.0.1:1", "://", "http://127.0.0.1"} {
		if _, err := etcdstate.Start(t.Context(),
			etcdstate.Config{Dir: t.TempDir(), ClientURL: u}); !errs.Is(err, errs.Invalid) {
			t.Errorf("client address %s: %v", u, err)
		}
	}
	if e := start(t, etcdstate.Config{}); e.Endpoint() != "" {
		t.Errorf("a member without a client address listens at %s", e.Endpoint())
	}
	socket := filepath.Join(t.TempDir(), "etcd.sock")
	e := start(t, etcdstate.Config{ClientURL: "unix://" + socket})
	s := dial(t, e.Endpoint(), "")
	if _, err := s.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: "a"}}}); err != nil {
		t.Errorf("over a unix socket: %v", err)
	}
}

func TestDialOfNobodyIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := etcdstate.Dial(ctx, etcdstate.DialConfig{Endpoints: []string{"http://127.0.0.1:1"}})
	if !errs.Is(err, errs.Unavailable) || errs.RemedyOf(err) == "" {
		t.Fatalf("dial of a dead endpoint: %v", err)
	}
}

func TestRestoreRefusesDamagedSnapshots(t *testing.T) {
	s := start(t, etcdstate.Config{}).Store()
	if _, err := s.Commit(t.Context(),
		state.Txn{Then: []state.Op{{Key: "a", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	var good bytes.Buffer
	if err := s.Snapshot(t.Context(), &good); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good.Bytes())
	flipped[len(flipped)/2] ^= 1
	dir := t.TempDir()
	for name, bad := range map[string][]byte{
		"empty": nil, "foreign": []byte("not a snapshot"), "cut": good.Bytes()[:good.Len()/2],
		"flipped": flipped,
	} {
		if err := etcdstate.Restore(dir, bytes.NewReader(bad)); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%s snapshot: %v", name, err)
		}
	}
	if err := etcdstate.Restore(dir, bytes.NewReader(good.Bytes())); err != nil {
		t.Fatalf("the good snapshot, after bad ones: %v", err)
	}
	if err := etcdstate.Restore(dir, bytes.NewReader(good.Bytes())); !errs.Is(err, errs.Conflict) {
		t.Errorf("restore over a state: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 { // lock, etcd
		t.Errorf("a restore leaves %v, %v", left, err)
	}
}

func TestDamagedDirectoryIsAnErrorAndNotAnExit(t *testing.T) {
	dir := t.TempDir()
	e := start(t, etcdstate.Config{Dir: dir})
	if _, err := e.Store().Commit(t.Context(),
		state.Txn{Then: []state.Op{{Key: "a"}}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wals, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
	if err != nil || len(wals) == 0 {
		t.Fatalf("no write-ahead log: %v", err)
	}
	b, err := os.ReadFile(wals[0])
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 0xff
	if err := os.WriteFile(wals[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = etcdstate.Start(t.Context(), etcdstate.Config{Dir: dir})
	if !errs.Is(err, errs.Corrupt) || errs.RemedyOf(err) == "" {
		t.Fatalf("start on a damaged write-ahead log: %v", err)
	}
}
