package worker_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// waitsForKeys reports whether the worker says that machines wait for their keys.
func (r *rig) waitsForKeys() bool {
	return slices.ContainsFunc(r.feed.last().Conditions, func(c fleet.Condition) bool {
		return c.Name == fleet.ConditionKeysMissing && c.Remedy != ""
	})
}

// writtenAt returns a file below dir that has b in it as it is, in hex or in base64; "": none.
func writtenAt(t *testing.T, dir string, b []byte) (found string) {
	t.Helper()
	forms := [][]byte{b, []byte(hex.EncodeToString(b)),
		[]byte(base64.StdEncoding.EncodeToString(b))}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Contains(data, f) }) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKeysAreInMemoryOnly: a worker that has an encrypted machine to start, and not its key, as
// after a restart without a server, waits and says so. With the key it goes on, and writes it
// nowhere.
func TestKeysAreInMemoryOnly(t *testing.T) {
	r := newRig(t, 1)
	key := []byte("the-key-of-the-disk-of-machine-1")
	ring, err := kek.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Create(t.Context(), r.store, "disks/"+string(m1),
		disk.CreateOptions{Size: 1 << 20, Key: ring}); err != nil {
		t.Fatal(err)
	}
	a := assignment(m1, 1, fleet.WantRunning)
	a.Encrypted = true
	r.feed.assign(a)
	r.start()
	r.eventually("waiting for the key", r.waitsForKeys)
	r.feed.setDown(true)
	r.restart() // without a server it knows what its record says
	r.feed.setDown(false)
	r.eventually("waiting for the key again", r.waitsForKeys)
	if n := len(r.host.bound()); n != 0 || r.head(m1).Epoch != 0 {
		t.Fatalf("%d VMs were bound without the key; the disk is at epoch %d", n, r.head(m1).Epoch)
	}
	private := fleet.Private{DiskKeys: [][]byte{key},
		Secrets: map[string]string{"TOKEN": "what-only-the-machine-may-know"}}
	r.feed.assignWith(map[fleet.MachineID]fleet.Private{m1: private}, a)
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.eventually("not waiting", func() bool { return !r.waitsForKeys() })
	vm := r.host.bound()[0]
	vm.mu.Lock()
	got := vm.bind.Secrets["TOKEN"]
	vm.mu.Unlock()
	if got != private.Secrets["TOKEN"] {
		t.Errorf("the VM was told %q", got)
	}
	r.feed.setDown(true)
	r.restart() // its machine goes on without keys
	r.feed.setDown(false)
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	for _, hidden := range [][]byte{key, []byte(private.Secrets["TOKEN"])} {
		if at := writtenAt(t, r.cfg.DataDir, hidden); at != "" {
			t.Errorf("%s has it", at)
		}
	}
	if at := writtenAt(t, r.cfg.DataDir, []byte(m1)); at == "" {
		t.Error("the records aren't where they were looked for")
	}
}
