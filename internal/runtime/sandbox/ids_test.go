package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// TestIDsAreOfOneVM: while a VM's directory is there nobody else gets its ids; given back or left
// by a VM that is gone they are free again. Giving back what is somebody else's by now does
// nothing.
func TestIDsAreOfOneVM(t *testing.T) {
	top := t.TempDir()
	take := func(name string) (string, uint32) {
		t.Helper()
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		first, err := takeIDs(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := giveIDs(first, dir); err != nil {
				t.Error(err)
			}
		})
		return dir, first
	}
	dirA, a := take("a")
	_, b := take("b")
	if a == b || a < firstIDs || (a-firstIDs)%idsOfVM != 0 {
		t.Fatalf("ids from %d and from %d", a, b)
	}
	if err := os.Remove(dirA); err != nil { // as by a worker that died while it removed it
		t.Fatal(err)
	}
	_, c := take("c")
	if c == b {
		t.Errorf("a VM gets the ids of another from %d on", b)
	}
	if c == a {
		if err := giveIDs(a, dirA); err != nil { // too late: they are c's
			t.Error(err)
		}
		if _, d := take("d"); d == c {
			t.Errorf("ids from %d are given away twice", c)
		}
	}
	if err := giveIDs(0, dirA); err != nil {
		t.Errorf("a VM without ids of its own: %v", err)
	}
}
