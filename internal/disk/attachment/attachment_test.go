package attachment

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sleeper starts a process that waits to be ended.
func sleeper(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	p.PID = cmd.Process.Pid
	if p.Start, _, err = stat(p.PID); err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestLiveness(t *testing.T) {
	cmd, p := sleeper(t)
	again, ok := ParseHolder(p.Holder())
	if !ok || again != p {
		t.Fatalf("%+v became %+v", p, again)
	}
	reused, elsewhere, other := p, p, p
	reused.Start--
	elsewhere.Boot = "another"
	other.Namespace = "1"
	for name, x := range map[string]struct {
		p    Process
		want Liveness
	}{"itself": {p, Alive}, "an earlier one with its PID": {reused, Dead},
		"of another boot": {elsewhere, Unknown}, "of another namespace": {other, Unknown}} {
		if got := x.p.Liveness(); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
	if err := reused.Signal(unix.SIGTERM); !errs.Is(err, errs.NotFound) {
		t.Errorf("a signal to an earlier process of that PID: %v", err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	if got := p.Liveness(); got != Dead {
		t.Errorf("after its end: %v", got)
	}
	for _, s := range []string{"", "vm-1", "sluice-disk/h/b/n/x/1", "sluice-disk/h/b/n/0/1",
		p.Holder() + "/x"} {
		if _, ok := ParseHolder(s); ok {
			t.Errorf("%q was understood", s)
		}
	}
}

func TestRegistry(t *testing.T) {
	g := Open(filepath.Join(t.TempDir(), "run"))
	if live, dead, err := g.List(); len(live)+len(dead) != 0 || err != nil {
		t.Fatalf("%v %v %v", live, dead, err)
	}
	cmd, p := sleeper(t)
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	mine, other := Record{URL: "file:///a/disks/x", Mode: Serve, Process: self},
		Record{URL: "file:///a/disks/x", Mode: Mount, Process: p}
	for _, r := range []*Record{&mine, &other, &mine} { // twice does no harm
		if err := g.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(g.dir, "odd.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if live, dead, err := g.List(); len(live) != 2 || len(dead) != 0 || err != nil {
		t.Fatalf("%v %v %v", live, dead, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	live, dead, err := g.List()
	if len(live) != 1 || len(dead) != 1 || live[0].Mode != Serve || err != nil {
		t.Fatalf("%v %v %v", live, dead, err)
	}
	for range 2 {
		if err := g.Remove(&mine); err != nil {
			t.Fatal(err)
		}
	}
	if live, _, _ := g.List(); len(live) != 0 {
		t.Errorf("%v", live)
	}
}
