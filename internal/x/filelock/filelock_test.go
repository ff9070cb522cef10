package filelock_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filelock"
)

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestALockWithACopy: a copy of the file, as a process has that is being forked, keeps nobody away
// once it is closed.
func TestALockWithACopy(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first := open(t, name)
	if err := filelock.Take(first); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Take(open(t, name)); !errs.Is(err, errs.Conflict) {
		t.Errorf("taken twice: %v", err)
	}
	held, err := unix.Dup(int(first.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := filelock.Close(first); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Take(open(t, name)); err != nil {
		t.Errorf("after the first was closed: %v", err)
	}
}

// TestALockThatLastsForAMoment is waited for.
func TestALockThatLastsForAMoment(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first := open(t, name)
	if err := filelock.Take(first); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(filelock.Moment/10, func() { filelock.Close(first) })
	if err := filelock.Take(open(t, name)); err != nil {
		t.Error(err)
	}
}
