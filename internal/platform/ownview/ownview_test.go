package ownview

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// cgroup makes what a cgroup of either version shows, as files of the test's own.
func cgroup(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEitherVersion: the same machine is shown the same, whichever version of cgroups it is in.
func TestEitherVersion(t *testing.T) {
	v2 := cgroup(t, map[string]string{
		"cpu.stat":       "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n",
		"memory.current": "41943040\n",
		"memory.stat":    "anon 10485760\nfile 20971520\nshmem 1048576\nactive_file 4194304\ninactive_file 8388608\n",
		"cgroup.threads": "",
	})
	v1 := cgroup(t, map[string]string{
		"cpuacct.stat":          "user 200\nsystem 100\n",
		"memory.usage_in_bytes": "41943040\n",
		"memory.stat":           "total_rss 10485760\ntotal_cache 20971520\ntotal_shmem 1048576\ntotal_active_file 4194304\ntotal_inactive_file 8388608\n",
		"tasks":                 "",
	})
	h := host{processors: 4, memory: 8 << 30, uptime: 100 * time.Second, booted: "btime 7\n"}
	for version, dir := range map[string]string{"v1": v1, "v2": v2} {
		u := readUse([]string{t.TempDir(), dir})
		if got, want := stat(h, u, 2, 0, 5), "cpu  200 0 100 19700 0 0 0 0 0 0\n"+
			"cpu0 100 0 50 9850 0 0 0 0 0 0\ncpu1 100 0 50 9850 0 0 0 0 0 0\n"+
			"intr 0\nctxt 0\nbtime 7\nprocesses 5\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n"; got != want {
			t.Errorf("%s: %s\nwant %s", version, got, want)
		}
		shown := meminfo(h.memory, 128<<20, u)
		for _, line := range []string{"MemTotal:         131072 kB", "MemFree:           90112 kB",
			"MemAvailable:     102400 kB", "Cached:            20480 kB",
			"AnonPages:         10240 kB", "Shmem:              1024 kB",
			"HugePages_Total:       0"} {
			if !strings.Contains(shown, line+"\n") {
				t.Errorf("%s: no line %q in\n%s", version, line, shown)
			}
		}
	}
	const all = "MemTotal:        8388608 kB"
	if shown := meminfo(h.memory, 0, use{}); !strings.HasPrefix(shown, all) {
		t.Errorf("without a bound: %s", shown)
	}
}

// TestLoadFollowsWhatRuns: the averages rise and fall as the kernel's do.
func TestLoadFollowsWhatRuns(t *testing.T) {
	var l load
	l.add(time.Hour, 4)
	if l.averages != [3]float64{} {
		t.Errorf("one count makes a load of %v", l.averages)
	}
	for i := range 150 { // five minutes
		l.add(time.Hour+time.Duration(i+1)*2*time.Second, 4)
	}
	if a := l.averages; a[0] < 3.9 || a[0] > 4 || a[1] < 2.4 || a[1] > 2.7 || a[2] > 1.3 {
		t.Errorf("after five minutes of 4: %v", a)
	}
	l.add(time.Hour+10*time.Minute, 0)
	if a := l.averages; a[0] > 0.1 || a[2] < 0.5 {
		t.Errorf("five minutes later: %v", a)
	}
}

// TestFilesStayTheSame: what is mounted is the file itself, so it is written in place; also when it
// gets shorter.
func TestFilesStayTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "view")
	v, err := Make(dir)
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(filepath.Join(dir, "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, text := range []string{"a long text\n", "short\n", "longer again\n"} {
		if err := v.write("loadavg", text); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64)
		if n, _ := held.ReadAt(b, 0); string(b[:n]) != text {
			t.Errorf("who has it open reads %q, want %q", b[:n], text)
		}
	}
	if err := v.Update(fleet.Resources{CPUMillis: 1000, MemoryMiB: 64}, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range Files() {
		if text, err := os.ReadFile(filepath.Join(dir, f.File)); err != nil || len(text) == 0 {
			t.Errorf("%s: %q, %v", f.File, text, err)
		}
	}
}
