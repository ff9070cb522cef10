package memcg_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// The count is found in what kernels of either version write, and its lack is told from a count of
// none.
func TestOOMKills(t *testing.T) {
	for what, c := range map[string]struct {
		file, text string
		v2         bool
		want       int64
		missing    bool
	}{
		"v1": {file: "memory.oom_control",
			text: "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", want: 7},
		"v1 none": {file: "memory.oom_control",
			text: "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"},
		"v1 old": {file: "memory.oom_control", text: "oom_kill_disable 0\nunder_oom 0\n",
			missing: true},
		"v2": {file: "memory.events",
			text: "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
			v2:   true, want: 2},
		"neither": {file: "cgroup.procs", text: "", v2: true, missing: true},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := memcg.Cgroup{Dir: dir, V2: c.v2}.OOMKills()
		if got != c.want || errors.Is(err, fs.ErrNotExist) != c.missing ||
			(err != nil) != c.missing {
			t.Errorf("%s: %d, %v", what, got, err)
		}
	}
}

// A counter notices a kill that is new, for as long as it is asked for, and none that was there
// before.
func TestCounter(t *testing.T) {
	g := memcg.Cgroup{Dir: t.TempDir(), V2: true}
	count := func(n string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(g.Dir, "memory.events"), []byte("oom_kill "+n+"\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	count("3")
	c := memcg.NewCounter(nil, []memcg.Cgroup{{Dir: t.TempDir()}, g})
	if c.Recent(time.Hour) {
		t.Error("an old kill is taken for a new one")
	}
	count("4")
	c.Look() // however often somebody looks
	if first := c.Recent(time.Hour); !first || !c.Recent(time.Hour) {
		t.Error("a new kill isn't noticed")
	}
	if c.Recent(0) {
		t.Error("a kill is recent for ever")
	}
	if memcg.NewCounter().Recent(time.Hour) {
		t.Error("a kill where nothing counts")
	}
}
