package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// keep puts a tree of about n KiB into a cache, used that many hours ago.
func keep(t *testing.T, c Cache, name string, kib int, hours time.Duration) *Tree {
	t.Helper()
	tree, err := c.add(name, func(dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "f"), make([]byte, kib<<10), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-hours * time.Hour)
	if err := os.Chtimes(filepath.Join(tree.dir, useName), when, when); err != nil {
		t.Fatal(err)
	}
	return tree
}

func closed(t *testing.T, tree *Tree) {
	t.Helper()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}

func namesIn(t *testing.T, c Cache) []string {
	t.Helper()
	all, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
	}
	return names
}

// What wasn't used for longest goes first, what is in use stays, and a use counts as one.
func TestCacheKeepsWithinItsLimit(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Limit: 500 << 10}
	old := keep(t, c, "old-in-use", 200, 9)
	closed(t, keep(t, c, "older", 200, 5))
	closed(t, keep(t, c, "newer", 200, 4))
	closed(t, keep(t, c, "newest", 200, 3))
	if got := namesIn(t, c); !slices.Equal(got,
		[]string{"newest", "newer", "older", "old-in-use"}) {
		t.Errorf("by use: %v", got)
	}
	again, err := c.open("older")
	if err != nil {
		t.Fatal(err)
	}
	closed(t, again)
	removed, err := c.Prune()
	if err != nil || len(removed) != 1 || removed[0].Name != "newer" || removed[0].Bytes < 200<<10 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if got := namesIn(t, c); !slices.Equal(got, []string{"older", "newest", "old-in-use"}) {
		t.Errorf("left %v", got)
	}
	if _, err := os.Stat(filepath.Join(old.Dir(), "f")); err != nil {
		t.Errorf("a tree in use: %v", err)
	}
	closed(t, old)
	if removed, err := c.Clear(); err != nil || len(removed) != 3 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
	if _, err := c.open("older"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

// A tree that is being made can't be used and isn't removed; what a process that died was making
// is.
func TestCacheOfUnfinishedTrees(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Limit: 1 << 30}
	dead := filepath.Join(c.Dir, "x"+undone+"dead")
	if err := os.MkdirAll(filepath.Join(dead, treeName), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead, useName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := c.add("x", func(dir string) error {
		if _, err := c.open("x"); !errs.Is(err, errs.NotFound) {
			t.Errorf("half a tree is used: %v", err)
		}
		if removed, err := c.Prune(); err != nil || len(removed) != 1 ||
			removed[0].Name != filepath.Base(dead) {
			t.Errorf("removed %+v, %v", removed, err)
		}
		if all, err := c.List(); err != nil || len(all) != 1 || !all[0].InUse {
			t.Errorf("while it is made: %+v, %v", all, err)
		}
		closed(t, keep(t, c, "x", 1, 0)) // another one is faster
		return os.Mkdir(dir, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tree.Dir(), "f")); err != nil {
		t.Errorf("not the one that was there first: %v", err)
	}
	closed(t, tree)
	if got := namesIn(t, c); !slices.Equal(got, []string{"x"}) {
		t.Errorf("left %v", got)
	}
}
