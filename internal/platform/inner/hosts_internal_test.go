package inner

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestAHostileHostsFileIsNotReadWhole: a sparse file of a terabyte takes nothing of a disk.
func TestAHostileHostsFileIsNotReadWhole(t *testing.T) {
	dir := t.TempDir()
	m := Machine{Disk: dir, Hostname: "box", ID: "0100000000000a"}
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf", "machine-id"} {
		path := filepath.Join(etc, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1<<40); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := writeIdentity(m); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("%d MiB were allocated", took>>20)
	}
	if info, err := os.Stat(filepath.Join(etc, "hosts")); err != nil || info.Size() != 1<<40 {
		t.Errorf("%v, %v", info, err)
	}
	// One of a usual length is kept and added to.
	hosts := filepath.Join(etc, "hosts")
	long := strings.Repeat("0.0.0.0 tracker.example\n", 100_000)
	if err := os.WriteFile(hosts, []byte(long), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeIdentity(m); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(hosts)
	if err != nil || !strings.Contains(string(got), long) ||
		!strings.Contains(string(got), hostsBegin) {
		t.Errorf("a long list of hosts has %d bytes, of %d: %v", len(got), len(long), err)
	}
}
