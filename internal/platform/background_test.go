package platform_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a command leaves in the background stays, whether it writes on or not, and doesn't keep the
// session.
func testBackground(t *testing.T, v *testVM) {
	const nohup = "trap '' HUP; " // what nohup does
	const ticking = `sh -c 'while :; do echo tick; echo x >> /tmp/NAME; sleep 0.05; done'`
	for name, c := range map[string]struct {
		script string
		tty    string
		stays  bool
	}{
		"plain":    {script: ticking + " & echo $!", stays: true},
		"nohup":    {script: nohup + ticking + " & echo $!", stays: true},
		"setsid":   {script: "setsid " + ticking + " & echo $!", stays: true},
		"quiet":    {script: ticking + " >/dev/null 2>&1 & echo $!", stays: true},
		"terminal": {script: ticking + " >/dev/null & echo $!", tty: "1", stays: false},
		"terminal-with-nohup": {script: nohup + ticking + " >/dev/null & echo $!",
			tty: "1", stays: true},
		"terminal-with-setsid": {script: "setsid " + ticking + " >/dev/null 2>&1 & echo $!",
			tty: "1", stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			// The output before the end of the command is whole, although somebody holds it open.
			// It ends once what it leaves has come as far as to ignore a hangup, if it does.
			script := strings.ReplaceAll(
				"seq 5000; "+c.script+"; until [ -s /tmp/NAME ]; do sleep 0.05; done", "NAME", name)
			r := v.exec(shell(script, "tty", c.tty))
			lines := strings.Fields(strings.ReplaceAll(r.stdout, "tick", ""))
			if r.code != 0 || len(lines) != 5001 || lines[4999] != "5000" {
				t.Fatalf("code %d, %d words of output", r.code, len(lines))
			}
			if c.stays {
				v.grows("/tmp/" + name)
				v.exec(shell("kill -9 " + lines[5000]))
				return
			}
			v.stopsGrowing("/tmp/" + name)
		})
	}
}

// size is how long a file in the machine is.
func (v *testVM) size(path string) int {
	v.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(v.sh("wc -c < " + path)))
	if err != nil {
		v.t.Fatal(err)
	}
	return n
}

// grows waits until a file has got ten marks longer, and again: 64 KiB of pipe hide a broken one no
// longer than that.
func (v *testVM) grows(path string) {
	v.t.Helper()
	v.sh("for i in 1 2 3 4 5 6; do [ -s " + path + " ] && exit; sleep 1; done; exit 1")
	for range 2 {
		before := v.size(path)
		v.sh(
			fmt.Sprintf(
				"for i in $(seq 600); do [ $(wc -c < %s) -gt %d ] && exit; sleep 0.1; done; exit 1",
				path, before+20))
	}
}

// stopsGrowing waits until nothing is added to a file any more.
func (v *testVM) stopsGrowing(path string) {
	v.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		before := v.exec(shell("cat " + path)).stdout
		time.Sleep(time.Second)
		if v.exec(shell("cat "+path)).stdout == before {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatal("still runs after its terminal was closed")
		}
	}
}

// A command that the kernel has killed for lack of memory says so, to who started it and in the
// VM's state.
func testOutOfMemory(t *testing.T, v *testVM) {
	if h := v.health(); h.OOM != nil {
		t.Fatalf("before anything: %+v", h.OOM)
	}
	if r := v.exec(shell("kill -9 $$")); r.code != 137 || strings.Contains(r.stderr, "memory") {
		t.Errorf("killed by somebody: %+v", r)
	}
	for _, script := range []string{"exec tail /dev/zero", "tail /dev/zero; exit $?"} {
		if r := v.exec(shell(script)); r.code != 137 ||
			!strings.Contains(r.stderr, "sluice: killed: the machine is out of memory") {
			t.Errorf("%s: code %d, stderr %q", script, r.code, r.stderr)
		}
	}
	if h := v.health(); h.OOM == nil || h.OOM.Kills < 2 {
		t.Errorf("the VM's state says %+v", h.OOM)
	}
	if r := v.exec(shell("tail /dev/zero; exec true")); r.code != 0 ||
		strings.Contains(r.stderr, "sluice: ") {
		t.Errorf("a command that goes on after its child was killed: %+v", r)
	}
}
