package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
)

const childDir = "SLUICE_AUDIT_TEST_DIR"

// durable is a state that outlives its process, as etcd does: the one key that the log keeps.
type durable struct {
	state.Store
	path string
}

func openDurable(ctx context.Context, path string) (*durable, error) {
	d := &durable{Store: memstate.New(memstate.Config{}), path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = d.Store.Commit(ctx, state.Txn{Then: []state.Op{{Key: "audit/head", Value: data}}})
	return d, err
}

func (d *durable) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	if err := atomicfile.Write(d.path, txn.Then[0].Value, 0o600); err != nil {
		return 0, err
	}
	return d.Store.Commit(ctx, txn)
}

func openIn(ctx context.Context, dir string) (*audit.Log, error) {
	kept, err := openDurable(ctx, filepath.Join(dir, "head"))
	if err != nil {
		return nil, err
	}
	pool, err := fileblob.Open(filepath.Join(dir, "pool"))
	if err != nil {
		return nil, err
	}
	return audit.Open(audit.Config{Dir: filepath.Join(dir, "spool"), Fleet: "f1",
		BatchEvery: time.Millisecond, BatchBytes: 1500},
		audit.Deps{Store: pool, State: kept, Log: slog.New(slog.DiscardHandler)})
}

// TestMain is the process that is killed, where it is told to be.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child makes calls for ever, and prints what it was told of each.
func child(dir string) error {
	ctx := context.Background()
	l, err := openIn(ctx, dir)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	var mu sync.Mutex
	say := func(what, id string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Println(what, id)
	}
	for worker := range 4 {
		g.Go(func() error {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i)
				if err := l.Begin(entry(id)); err != nil {
					return err
				}
				say("begun", id)
				if err := l.End(entry(id)); err != nil {
					return err
				}
				say("ended", id)
			}
		})
	}
	return g.Wait()
}

// TestKilledAtAnyMoment: whenever a server is killed, each call that was begun is in the chain
// once, and each that was answered has its answer.
func TestKilledAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	told := map[string]string{}
	for range 25 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killAt, lines := 1+rand.IntN(150), 0
		for in := bufio.NewScanner(out); in.Scan(); {
			if what, id, ok := strings.Cut(in.Text(), " "); ok {
				told[id] = what
			}
			if lines++; lines == killAt {
				_ = cmd.Process.Kill()
			}
		}
		if lines < killAt {
			t.Fatalf("it ended by itself: %v", cmd.Wait())
		}
		_ = cmd.Wait()
	}
	l, err := openIn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, log: l}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	b.eventually("the spool is empty", func() bool { return l.Status().SpoolBytes == 0 })
	found := map[string]audit.Entry{}
	cut := 0
	for _, e := range b.all(len(told)) {
		if _, twice := found[e.RequestID]; twice {
			t.Errorf("call %s is there twice", e.RequestID)
		}
		found[e.RequestID] = e
		if e.Note != "" {
			cut++
		}
	}
	for id, what := range told {
		if e, ok := found[id]; !ok || what == "ended" && e.Note != "" {
			t.Errorf("call %s was %s: %v %+v", id, what, ok, e)
		}
	}
	if r := b.verify(); r.Break != nil || r.Entries != int64(len(found)) || cut == 0 {
		t.Errorf("%+v, %d interrupted", r, cut)
	}
	t.Logf("%d calls, %d of them interrupted", len(found), cut)
}
