package fleettest

import (
	"context"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shared is something that is the same for all tests of a process, and is made by the first that
// asks. Where that one fails in making it, the next tries.
type shared[T any] struct {
	mu   sync.Mutex
	made bool
	it   T
}

func (s *shared[T]) get(make func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made {
		s.it = make()
		s.made = true
	}
	return s.it
}

var (
	binaries  shared[string] // the tree that they are of
	testImage shared[[]byte]
)

// Build makes sure that the binaries are those of this tree, and returns its root.
func Build(t testing.TB) string {
	t.Helper()
	return binaries.get(func() string {
		root := repositoryRoot(t)
		cmd := exec.CommandContext(context.Background(), filepath.Join(root, "scripts/build.sh"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		return root
	})
}

// Release is the directory of this tree's release.
func Release(t testing.TB) string {
	t.Helper()
	return release(t, Build(t))
}

// release is the directory of the newest release; its own name is the release's identity.
func release(t testing.TB, root string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "bin/release"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
