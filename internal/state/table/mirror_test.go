package table_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/state/table"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// runMirror runs a mirror until the test ends, and sees that it ends then.
func runMirror(t *testing.T, s state.Store, prefixes ...string) *table.Mirror {
	t.Helper()
	m := table.NewMirror(s, slog.New(slog.DiscardHandler), prefixes...)
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return m.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func waitFor(t *testing.T, m *table.Mirror, rev int64) *table.View {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.WaitFor(ctx, rev); err != nil {
		t.Fatal(err)
	}
	return m.Snapshot()
}

func ids(t *testing.T, tab *table.Table[pet], v *table.View) []string {
	t.Helper()
	records, err := tab.ListFrom(v)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		names = append(names, r.ID)
	}
	return names
}

func TestMirrorReadsItsOwnWrites(t *testing.T) {
	e, err := etcdstate.Start(t.Context(), etcdstate.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, s := range map[string]state.Store{"etcd": e.Store(), "mem": memstate.New(memstate.Config{})} {
		t.Run(name, func(t *testing.T) {
			pets, farm := table.New[pet](s, "pets"), table.New[pet](s, "farm")
			commit(t, s, pets.Create("before", pet{}), farm.Create("cow", pet{}))
			m := runMirror(t, s, "pets/", "plants/")
			for i := range 50 {
				rev := commit(t, s, pets.Create(fmt.Sprintf("p%02d", i), pet{Age: i}))
				got, err := pets.GetFrom(waitFor(t, m, rev), fmt.Sprintf("p%02d", i))
				if err != nil || got.Value.Age != i || got.ModRevision != rev {
					t.Fatalf("own write %d: %+v, %v", i, got, err)
				}
			}
			view := m.Snapshot()
			rev := commit(t, s, pets.Delete(get(t, pets, "before")))
			if _, err := pets.GetFrom(waitFor(t, m, rev), "before"); !errs.Is(err, errs.NotFound) {
				t.Errorf("a deleted record: %v", err)
			}
			if _, err := pets.GetFrom(view, "before"); err != nil || view.Len() != 51 {
				t.Errorf("an old view changed: %d keys, %v", view.Len(), err)
			}
			if left := ids(t, farm, m.Snapshot()); left != nil {
				t.Errorf("keys outside of the prefixes: %v", left)
			}
		})
	}
}

// TestMirrorWaitsForRevisionsElsewhere waits for a commit that its watch can't see.
func TestMirrorWaitsForRevisionsElsewhere(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets, farm := table.New[pet](s, "pets"), table.New[pet](s, "farm")
	commit(t, s, pets.Create("rex", pet{}))
	m := runMirror(t, s, pets.Prefix())
	waitFor(t, m, 1)
	rev := commit(t, s, farm.Create("cow", pet{}))
	if v := waitFor(t, m, rev); v.Len() != 1 || v.Revision() < rev {
		t.Fatalf("view of %d keys at revision %d, want %d", v.Len(), v.Revision(), rev)
	}
}

// TestMirrorSurvives breaks watches and compacts history under a mirror while records change, and wants it to
// end with the store's own list.
func TestMirrorSurvives(t *testing.T) {
	s := memstate.New(memstate.Config{History: 5})
	pets := table.New[pet](s, "pets")
	m := runMirror(t, s, "pets/")
	var rev int64
	for i := range 300 {
		id := fmt.Sprint(i % 37)
		rev = commit(t, s, pets.Put(id, pet{Age: i}))
		if i%11 == 0 {
			rev = commit(t, s, pets.Delete(get(t, pets, id)))
		}
		if i%50 == 0 {
			s.BreakWatches()
			s.Compact(rev)
		}
	}
	view := waitFor(t, m, rev)
	want, at, err := pets.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := pets.ListFrom(view)
	if err != nil || view.Revision() != at {
		t.Fatalf("view at %d, list at %d, %v", view.Revision(), at, err)
	}
	same := func(a, b table.Versioned[pet]) bool {
		return a.Key == b.Key && a.ModRevision == b.ModRevision && a.Value.Age == b.Value.Age
	}
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("mirror %+v\nstore %+v", got, want)
	}
}

func TestMirrorChangedIsLevelTriggered(t *testing.T) {
	s := memstate.New(memstate.Config{})
	pets := table.New[pet](s, "pets")
	m := runMirror(t, s)
	waitFor(t, m, 1)
	changed := m.Changed()
	select {
	case <-changed:
		t.Fatal("changed without a change")
	default:
	}
	rev := commit(t, s, pets.Create("a", pet{}))
	waitFor(t, m, rev)
	select {
	case <-changed: // though nobody waited when it happened
	default:
		t.Fatal("a change went by unnoticed")
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	m := runMirror(t, memstate.New(memstate.Config{}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := m.WaitFor(ctx, 1_000_000)
	if !errs.Is(err, errs.Unavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait for the far future: %v", err)
	}
}
