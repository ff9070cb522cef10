package fileblob

import (
	"os"
	"path/filepath"
	"testing"
)

// A process syncs the names of directories that are known to be durable no more, and of those that
// a process which died has left before it could.
func TestNamesAreMadeDurableOnce(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	put := func(key string) (syncs int64) {
		t.Helper()
		s, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutIfAbsent(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		return s.syncs.Load()
	}
	if got := put("a/b/c/1"); got != 3+3+1 {
		t.Errorf(
			"the first of all: %d syncs, want 3 for the store, 3 for the directories, 1 for the object", got)
	}
	if got := put("a/b/c/2"); got != 1 {
		t.Errorf("beside it: %d syncs, want 1", got)
	}
	// by one who died at once
	if err := os.MkdirAll(filepath.Join(root, "a/x/y"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := put("a/x/y/1"); got != 2+1 {
		t.Errorf("in directories that nobody has synced: %d syncs, want 3", got)
	}
	if err := os.RemoveAll(filepath.Join(root, "a/b")); err != nil {
		t.Fatal(err)
	}
	if got := put("a/b/c/3"); got != 2+1 {
		t.Errorf("in directories that were made anew: %d syncs, want 3", got)
	}
	if err := os.RemoveAll(filepath.Join(root, privateDir, "tmp")); err != nil {
		t.Fatal(err)
	}
	if got := put("a/b/c/4"); got != 3+1 {
		t.Errorf("in a store that lacks a directory of its own: %d syncs, want 4", got)
	}
}
