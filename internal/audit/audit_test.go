package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const prefix = "audit/f1/chain/"

func key(n int) string { return fmt.Sprintf("%s%020d", prefix, n) }

// away is a store that can be taken away.
type away struct {
	blob.Store
	gone atomic.Bool
}

func (s *away) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if s.gone.Load() {
		return "", errs.New(errs.Unavailable, "the store is away")
	}
	return s.Store.PutIfAbsent(ctx, key, body)
}

// bench is a log with what it stands on.
type bench struct {
	t     *testing.T
	dir   string
	store *away
	state state.Store
	log   *audit.Log
	stop  func()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), store: &away{Store: memblob.New()},
		state: memstate.New(memstate.Config{})}
	return b
}

// run opens the log and runs it.
func (b *bench) run(cfg audit.Config) {
	b.t.Helper()
	cfg.Dir, cfg.Fleet = b.dir, "f1"
	if cfg.BatchEvery == 0 {
		cfg.BatchEvery = 2 * time.Millisecond
	}
	l, err := audit.Open(cfg,
		audit.Deps{Store: b.store, State: b.state, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	b.log = l
	b.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(func() { b.stop() })
}

func (b *bench) eventually(what string, so func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("never: %s", what)
		}
	}
}

func entry(id string) audit.Entry {
	return audit.Entry{Time: time.Now().UTC(), RequestID: id, Subject: "me", Kind: "token",
		Call: "POST /v1/machines", Status: 201}
}

func (b *bench) record(id string) {
	b.t.Helper()
	if err := b.log.Begin(entry(id)); err != nil {
		b.t.Fatal(err)
	}
	if err := b.log.End(entry(id)); err != nil {
		b.t.Fatal(err)
	}
}

// all returns the entries of the chain, once there are at least n.
func (b *bench) all(n int) []audit.Entry {
	b.t.Helper()
	var all []audit.Entry
	b.eventually(fmt.Sprintf("%d entries", n), func() bool {
		all = nil
		for after := ""; ; {
			page, err := b.log.List(b.t.Context(), audit.Query{Limit: 7, After: after})
			if err != nil {
				b.t.Fatal(err)
			}
			all = append(all, page.Entries...)
			if after = page.Next; after == "" {
				return len(all) >= n
			}
		}
	})
	return all
}

func (b *bench) verify() audit.Report {
	b.t.Helper()
	r, err := b.log.Verify(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// TestEachCallIsInTheChainOnce, however many come at a time.
func TestEachCallIsInTheChainOnce(t *testing.T) {
	b := newBench(t)
	b.run(audit.Config{BatchBytes: 2000})
	const calls = 300
	var g errgroup.Group
	for i := range calls {
		g.Go(func() error {
			id := fmt.Sprint("r", i)
			if err := b.log.Begin(entry(id)); err != nil {
				return err
			}
			return b.log.End(entry(id))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, e := range b.all(calls) {
		if e.Seq != int64(i+1) || seen[e.RequestID] {
			t.Errorf("entry %d is %+v", i, e)
		}
		seen[e.RequestID] = true
	}
	r := b.verify()
	if len(seen) != calls || r.Entries != calls || r.Break != nil || r.Objects < 2 {
		t.Errorf("%d calls; %+v", len(seen), r)
	}
	b.eventually("the spool is empty", func() bool { return b.log.Status().SpoolBytes == 0 })
}

// listed reports whether lists of all entries, page by page, say that the chain is broken.
func (b *bench) listed() (broken bool) {
	b.t.Helper()
	for after := ""; ; {
		page, err := b.log.List(b.t.Context(), audit.Query{Limit: 1, After: after})
		if err != nil {
			b.t.Fatal(err)
		}
		broken = broken || page.Break != nil
		if after = page.Next; after == "" {
			return broken
		}
	}
}

// TestCallsThatWereInterrupted are in the chain, too, and say so.
func TestCallsThatWereInterrupted(t *testing.T) {
	b := newBench(t)
	b.run(audit.Config{})
	if err := b.log.Begin(entry("lost")); err != nil {
		t.Fatal(err)
	}
	b.record("other") // so that the segment with lost is left behind
	b.all(1)
	b.stop()
	b.run(audit.Config{})
	all := b.all(2)
	if all[1].RequestID != "lost" || !strings.Contains(all[1].Note, "interrupted") {
		t.Errorf("%+v", all)
	}
}

// TestStoreIsAway: the spool takes what it may, then new calls are refused, those under way are
// recorded, and all of it gets into the chain later.
func TestStoreIsAway(t *testing.T) {
	b := newBench(t)
	b.store.gone.Store(true)
	b.run(audit.Config{SpoolBytes: 20000, BatchBytes: 3000})
	if err := b.log.Begin(entry("slow")); err != nil {
		t.Fatal(err)
	}
	taken := 1
	b.eventually("it refuses", func() bool {
		id := fmt.Sprint("r", taken)
		if err := b.log.Begin(entry(id)); err != nil {
			if !errs.Is(err, errs.Unavailable) || errs.RemedyOf(err) == "" {
				t.Fatal(err)
			}
			return true
		}
		if err := b.log.End(entry(id)); err != nil {
			t.Fatal(err)
		}
		taken++
		return false
	})
	if err := b.log.End(entry("slow")); err != nil {
		t.Errorf("a call that was under way: %v", err)
	}
	s := b.log.Status()
	if len(b.log.Lacks()) == 0 || s.Refused != 1 || s.Since.IsZero() || taken < 20 {
		t.Errorf("%d taken; %v %+v", taken, b.log.Lacks(), s)
	}
	b.store.gone.Store(false)
	b.all(taken)
	b.eventually("there is room", func() bool { return len(b.log.Lacks()) == 0 })
	b.record("after")
	b.all(taken + 1)
	if r := b.verify(); r.Break != nil || r.Entries != int64(taken+1) {
		t.Errorf("%+v", r)
	}
}

// chainOf makes a chain of one object for each call.
func (b *bench) chainOf(n int) {
	b.t.Helper()
	b.run(audit.Config{})
	for i := range n {
		b.record(fmt.Sprint("r", i))
		b.all(i + 1)
	}
	if r := b.verify(); r.Break != nil || r.Objects != int64(n) {
		b.t.Fatalf("before: %+v", r)
	}
}

func (b *bench) get(n int) []byte {
	b.t.Helper()
	obj, err := b.store.Get(b.t.Context(), key(n), blob.All())
	if err != nil {
		b.t.Fatal(err)
	}
	return obj.Data
}

func (b *bench) put(n int, data []byte) {
	b.t.Helper()
	if _, err := b.store.Put(b.t.Context(), key(n), data); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) remove(n int) {
	b.t.Helper()
	if err := b.store.Delete(b.t.Context(), key(n)); err != nil {
		b.t.Fatal(err)
	}
}

// TestVerifyFindsWhatWasDone to a chain, and names the first place.
func TestVerifyFindsWhatWasDone(t *testing.T) {
	change := func(data []byte, old, new string) []byte {
		out := strings.Replace(string(data), old, new, 1)
		if out == string(data) {
			t.Fatalf("%s is not in %s", old, data)
		}
		return []byte(out)
	}
	for name, c := range map[string]struct {
		do func(b *bench)
		at int64
	}{
		"removed":       {func(b *bench) { b.remove(3) }, 3},
		"first removed": {func(b *bench) { b.remove(1) }, 1},
		"tail cut":      {func(b *bench) { b.remove(5); b.remove(4) }, 4},
		"all removed": {func(b *bench) {
			for n := range 5 {
				b.remove(n + 1)
			}
		}, 1},
		"changed":      {func(b *bench) { b.put(2, change(b.get(2), `"me"`, `"you"`)) }, 2},
		"last changed": {func(b *bench) { b.put(5, change(b.get(5), `"me"`, `"you"`)) }, 5},
		"swapped": {func(b *bench) {
			x, y := b.get(2), b.get(3)
			b.put(2, y)
			b.put(3, x)
		}, 2},
		"doubled":        {func(b *bench) { b.put(4, b.get(3)) }, 4},
		"doubled at end": {func(b *bench) { b.put(6, b.get(5)) }, 6},
		"cut":            {func(b *bench) { b.put(3, b.get(3)[:100]) }, 3},
		"entry removed": {func(b *bench) {
			head, _, _ := strings.Cut(string(b.get(3)), "\n")
			b.put(3, []byte(head+"\n"))
		}, 3},
		"entry doubled": {func(b *bench) {
			head, rest, _ := strings.Cut(string(b.get(3)), "\n")
			b.put(3, change([]byte(head+"\n"+rest+rest), `"count":1`, `"count":2`))
		}, 3},
		"renumbered": {func(b *bench) { b.put(3, change(b.get(3), `"seq":3`, `"seq":4`)) }, 3},
		"of another fleet": {func(b *bench) {
			b.put(3, change(b.get(3), `"fleet":"f1"`, `"fleet":"f2"`))
		}, 3},
		"no object": {func(b *bench) {
			if _, err := b.store.Put(b.t.Context(), prefix+"note", nil); err != nil {
				b.t.Fatal(err)
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.chainOf(5)
			c.do(b)
			r := b.verify()
			if r.Break == nil || r.Break.Object != c.at || r.Break.Why == "" {
				t.Errorf("%+v %+v, want a break at %d", r, r.Break, c.at)
			}
			// A list tells of it, too, where it comes by it: not of what no entry is in.
			broken := b.listed()
			if outside := c.at == 0 || c.at > 5; broken == outside {
				t.Errorf("a list says that it is broken: %v", broken)
			}
		})
	}
}

// TestStateOfAnOlderSnapshot: the chain is longer than the state says. It is gone on with at its
// end; nothing is written over, and nothing is there twice.
func TestStateOfAnOlderSnapshot(t *testing.T) {
	b := newBench(t)
	b.chainOf(2)
	old, err := b.state.Get(t.Context(), "audit/head")
	if err != nil {
		t.Fatal(err)
	}
	b.record("r2")
	b.all(3)
	b.stop()
	if _, err := b.state.Commit(t.Context(), state.Txn{Then: []state.Op{
		{Key: old.Key, Value: old.Value}}}); err != nil {
		t.Fatal(err)
	}
	b.run(audit.Config{})
	b.record("r3")
	var ids []string
	for _, e := range b.all(4) {
		ids = append(ids, e.RequestID)
	}
	if r := b.verify(); !slices.Equal(ids, []string{"r0", "r1", "r2", "r3"}) || r.Break != nil {
		t.Errorf("%v %+v", ids, r)
	}
}

// TestList finds by time, by who and by what, page by page.
func TestList(t *testing.T) {
	b := newBench(t)
	b.run(audit.Config{BatchBytes: 1000})
	began := time.Now().UTC().Truncate(time.Second)
	for i := range 40 {
		e := entry(fmt.Sprint("r", i))
		e.Time = began.Add(time.Duration(i) * time.Minute)
		if i%2 == 1 {
			e.Subject, e.Token, e.Call = "you", "abc", "DELETE /v1/machines/{ref}"
			e.Objects = []string{"machine/m1"}
		}
		if err := b.log.End(e); err != nil {
			t.Fatal(err)
		}
	}
	b.all(40)
	for name, c := range map[string]struct {
		q    audit.Query
		want int
	}{
		"all": {audit.Query{}, 40}, "who": {audit.Query{Who: "you"}, 20},
		"token": {audit.Query{Who: "abc"}, 20}, "nobody": {audit.Query{Who: "yo"}, 0},
		"call": {audit.Query{What: "DELETE"}, 20}, "object": {audit.Query{What: "machine/m1"}, 20},
		"since": {audit.Query{Since: began.Add(30 * time.Minute)}, 10},
		"until": {audit.Query{Until: began.Add(30 * time.Minute)}, 30},
		"both": {audit.Query{Since: began.Add(10 * time.Minute),
			Until: began.Add(20 * time.Minute), Who: "me"}, 5},
	} {
		c.q.Limit = 3
		got := 0
		for {
			page, err := b.log.List(t.Context(), c.q)
			if err != nil || len(page.Entries) > 3 {
				t.Fatalf("%s: %v, %v", name, page, err)
			}
			got += len(page.Entries)
			if c.q.After = page.Next; page.Next == "" {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if _, err := b.log.List(t.Context(), audit.Query{After: "x"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a page token that is none: %v", err)
	}
}

// TestExecOfTellsTheProgramAlone.
func TestExecOfTellsTheProgramAlone(t *testing.T) {
	e := audit.ExecOf([]string{"/usr/bin/psql", "--password=hunter2"})
	data, err := json.Marshal(e)
	if err != nil || e.Program != "psql" || strings.Contains(string(data), "hunter2") {
		t.Errorf("%s, %v", data, err)
	}
	if e.SHA256 == audit.ExecOf([]string{"psql", "--password=hunter3"}).SHA256 ||
		audit.ExecOf([]string{"a", "b"}).SHA256 == audit.ExecOf([]string{"a b"}).SHA256 {
		t.Error("two commands have one hash")
	}
}

// TestDamagedSpoolIsToldOf, and a line that was cut at its end is not.
func TestDamagedSpoolIsToldOf(t *testing.T) {
	b := newBench(t)
	b.store.gone.Store(true)
	b.run(audit.Config{})
	b.record("a")
	b.stop()
	files, err := os.ReadDir(b.dir)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	path := b.dir + "/" + files[len(files)-1].Name()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	open := func(data string) error {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := audit.Open(audit.Config{Dir: b.dir, Fleet: "f1"}, audit.Deps{})
		return err
	}
	if err := open(string(whole) + `{"ended":{"requ`); err != nil {
		t.Errorf("a cut line: %v", err)
	}
	if err := open("x" + string(whole) + "\n{}\n"); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a damaged line: %v", err)
	}
}
