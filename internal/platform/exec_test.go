package platform_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// result is what a client saw of a session.
type result struct {
	stdout, stderr string
	code           int // -1: the session didn't end with an exit code
	failure        errs.Wire
}

// dialExec opens a session.
func (v *testVM) dialExec(q url.Values) *websocket.Conn {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Minute)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://vm"+guestapi.PathMachine+"exec?"+q.Encode(),
		&websocket.DialOptions{
			HTTPClient: v.http, HTTPHeader: http.Header{"Authorization": {"Bearer " + v.token}}})
	if err != nil {
		v.t.Fatalf("exec: %v (%v)", err, resp)
	}
	conn.SetReadLimit(1 << 20)
	return conn
}

// drain reads a session to its end.
func drain(ctx context.Context, conn *websocket.Conn) (result, error) {
	var out, errOut bytes.Buffer
	r := result{code: -1}
	for {
		_, data, err := conn.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			r.stdout, r.stderr = out.String(), errOut.String()
			return r, nil
		}
		if err != nil {
			return r, err
		}
		if r.code >= 0 {
			return r, fmt.Errorf("message %q after the exit code", data)
		}
		switch data[0] {
		case guestapi.FrameStdout:
			out.Write(data[1:])
		case guestapi.FrameStderr:
			errOut.Write(data[1:])
		case guestapi.FrameExit:
			r.code = int(data[1])
		case guestapi.FrameError:
			if err := json.Unmarshal(data[1:], &r.failure); err != nil {
				return r, err
			}
		}
	}
}

func (v *testVM) exec(q url.Values, input ...[]byte) result {
	v.t.Helper()
	conn := v.dialExec(q)
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Minute)
	defer cancel()
	for _, frame := range input {
		if err := conn.Write(ctx, websocket.MessageBinary, frame); err != nil {
			v.t.Fatalf("send input: %v", err)
		}
	}
	r, err := drain(ctx, conn)
	if err != nil {
		v.t.Fatalf("exec %v: %v", q["cmd"], err)
	}
	return r
}

func shell(script string, more ...string) url.Values {
	q := url.Values{"cmd": {"sh", "-c", script}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Add(more[i], more[i+1])
	}
	return q
}

func (v *testVM) sh(script string) string {
	v.t.Helper()
	r := v.exec(shell(script))
	if r.code != 0 {
		v.t.Fatalf("%s: exit code %d, stderr %q", script, r.code, r.stderr)
	}
	return r.stdout
}

func stdin(text string) []byte { return append([]byte{guestapi.FrameStdin}, text...) }

var stdinEOF = []byte{guestapi.FrameStdinEOF}

func TestExec(t *testing.T) {
	id := newDisk(t)
	b := bindOf(id, 1)
	b.Config.Resources.MemoryMiB = 96
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	t.Run("Table", func(t *testing.T) { testExecTable(t, v) })
	t.Run("FastCommandsLoseNothing", func(t *testing.T) {
		for i := range 50 {
			if r := v.exec(shell("echo out; echo err >&2; exit 5")); r.stdout != "out\n" ||
				r.stderr != "err\n" || r.code != 5 {
				t.Fatalf("run %d: %+v", i, r)
			}
		}
	})
	t.Run("BigOutput", func(t *testing.T) {
		r := v.exec(shell("yes 0123456789abcde | head -c 4194304"))
		if want := strings.Repeat("0123456789abcde\n", 4194304/16); r.code != 0 ||
			r.stdout != want {
			t.Fatalf("code %d, %d bytes", r.code, len(r.stdout))
		}
	})
	t.Run("LongCommand", func(t *testing.T) { testLongCommand(t, v) })
	t.Run("BackPressure", func(t *testing.T) { testBackPressure(t, v) })
	t.Run("LeftoverChildKeepsNothing", func(t *testing.T) {
		began := time.Now()
		if r := v.exec(shell("setsid sleep 30 & echo done")); r.stdout != "done\n" || r.code != 0 ||
			time.Since(began) > 5*time.Second {
			t.Fatalf("%+v after %v", r, time.Since(began))
		}
	})
	t.Run("Resize", func(t *testing.T) { testResize(t, v) })
	t.Run("Signal", func(t *testing.T) { testSignal(t, v) })
	t.Run("ClientGone", func(t *testing.T) { testClientGone(t, v) })
	t.Run("Background", func(t *testing.T) { testBackground(t, v) })
	t.Run("OutOfMemory", func(t *testing.T) { testOutOfMemory(t, v) })
	t.Run("Inside", func(t *testing.T) { testInside(t, v, b) })
	v.release(b)
	fsck(t, id)
	if err := v.call(t.Context(), http.MethodGet, guestapi.PathMachine+"exec?cmd=true", nil,
		nil); err == nil {
		t.Error("exec in a released machine")
	}
}

func testExecTable(t *testing.T, v *testVM) {
	for name, tc := range map[string]struct {
		query url.Values
		input [][]byte
		want  result
	}{
		"success":   {query: url.Values{"cmd": {"true"}}},
		"exit code": {query: shell("exit 7"), want: result{code: 7}},
		"SIGTERM":   {query: shell("kill -TERM $$"), want: result{code: 143}},
		"SIGKILL":   {query: shell("kill -KILL $$"), want: result{code: 137}},
		"not found": {query: url.Values{"cmd": {"no-such-command"}},
			want: result{code: 127, stderr: "no-such-command: command not found\n"}},
		"no such file": {query: url.Values{"cmd": {"/no/such"}},
			want: result{code: 127, stderr: "/no/such: no such file\n"}},
		"directory": {query: url.Values{"cmd": {"/etc"}},
			want: result{code: 126, stderr: "/etc: is a directory\n"}},
		"not executable": {query: url.Values{"cmd": {"/etc/passwd"}},
			want: result{code: 126, stderr: "/etc/passwd: permission denied\n"}},
		"no stdin": {query: shell("cat; echo end"), want: result{stdout: "end\n"}},
		"stdin and its end": {query: shell("cat; echo end", "stdin", "1"),
			input: [][]byte{stdin("one\n"), stdin("two\n"), stdinEOF},
			want:  result{stdout: "one\ntwo\nend\n"}},
		"input after its end": {query: shell("cat", "stdin", "1"),
			input: [][]byte{stdin("one\n"), stdinEOF, stdin("late"), stdinEOF},
			want:  result{stdout: "one\n"}},
		"open stdin doesn't hang": {query: shell("echo done", "stdin", "1"),
			want: result{stdout: "done\n"}},
		"nobody reads stdin": {query: shell("exit 3", "stdin", "1"),
			input: [][]byte{stdin(strings.Repeat("x", 300000)), stdinEOF}, want: result{code: 3}},
		"both streams": {query: shell("echo a; echo b >&2"),
			want: result{stdout: "a\n", stderr: "b\n"}},
		"machine's environment": {query: shell("echo $COLOUR $HOME"),
			want: result{stdout: "blue /root\n"}},
		"own environment": {query: shell("echo $COLOUR $A $B", "env", "COLOUR=red", "env", "A=1",
			"env", "B=x=y"),
			want: result{stdout: "red 1 x=y\n"}},
		"directory to run in": {query: shell("pwd", "dir", "/data"),
			want: result{stdout: "/data\n"}},
		"no such directory": {query: shell("pwd", "dir", "/no"),
			want: result{code: 126, stderr: "directory /no: no such file or directory\n"}},
		"user": {query: shell("id -un; id -gn", "user", "web"),
			want: result{stdout: "web\nweb\n"}},
		"terminal": {query: shell("stty size; test -t 0 && echo tty", "tty", "1", "rows",
			"33", "cols", "99"), want: result{stdout: "33 99\r\ntty\r\n"}},
		"terminal's input end": {query: shell("stty -echo; echo ready; cat; echo end", "tty", "1"),
			input: [][]byte{stdin("x\n"), stdinEOF},
			want:  result{stdout: "*end\r\n"}},
	} {
		got := v.exec(tc.query, tc.input...)
		if tail, ok := strings.CutPrefix(tc.want.stdout, "*"); ok &&
			strings.HasSuffix(got.stdout, tail) {
			got.stdout = tc.want.stdout
		}
		if got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

// testBackPressure checks that a client that doesn't read stops the command, and gets all of it
// later.
func testBackPressure(t *testing.T, v *testVM) {
	conn := v.dialExec(shell("head -c 33554432 /dev/zero; echo finished > /tmp/finished"))
	defer conn.CloseNow()
	time.Sleep(300 * time.Millisecond)
	if r := v.exec(shell("cat /tmp/finished")); r.code == 0 {
		t.Error("32 MiB went somewhere while nobody read")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := drain(ctx, conn)
	if err != nil || r.code != 0 || len(r.stdout) != 32<<20 {
		t.Errorf("got %d bytes, code %d, %v", len(r.stdout), r.code, err)
	}
}

func testResize(t *testing.T, v *testVM) {
	conn := v.dialExec(shell(
		"trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.05; done", "tty", "1"))
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, first, err := conn.Read(ctx); err != nil || !bytes.Contains(first, []byte("ready")) {
		t.Fatalf("%q %v", first, err)
	}
	if err := conn.Write(ctx, websocket.MessageText,
		[]byte(`{"type":"resize","rows":44,"cols":132}`)); err != nil {
		t.Fatal(err)
	}
	r, err := drain(ctx, conn)
	if err != nil || r.code != 4 || !strings.Contains(r.stdout, "44 132") {
		t.Errorf("%+v %v", r, err)
	}
}

func testSignal(t *testing.T, v *testVM) {
	conn := v.dialExec(
		shell("trap 'echo asked; exit 6' TERM; echo ready; while :; do sleep 0.05; done"))
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, first, err := conn.Read(ctx); err != nil || !bytes.Contains(first, []byte("ready")) {
		t.Fatalf("%q %v", first, err)
	}
	for _, message := range []string{`{"type":"signal","signal":"NONSENSE"}`,
		`{"type":"signal","signal":"SIGTERM"}`} {
		if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := drain(ctx, conn)
	if err != nil || r.code != 6 || !strings.Contains(r.stdout, "asked") {
		t.Errorf("%+v %v", r, err)
	}
}

// testClientGone checks that a command whose client has gone gets SIGHUP, and what ignores that
// SIGKILL.
func testClientGone(t *testing.T, v *testVM) {
	for name, script := range map[string]string{
		"obedient": "trap 'echo hup > /tmp/hup; exit' HUP; echo up; while :; do sleep 0.02; done",
		"stubborn": "trap '' HUP; echo up; while :; do sleep 0.02; done",
	} {
		conn := v.dialExec(shell("echo $$ > /tmp/" + name + "; " + script))
		if _, first, err := conn.Read(t.Context()); err != nil ||
			!bytes.Contains(first, []byte("up")) {
			t.Fatalf("%q %v", first, err)
		}
		conn.CloseNow()
		deadline := time.Now().Add(2 * time.Minute)
		for v.exec(shell("kill -0 $(cat /tmp/"+name+")")).code == 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%s: still runs", name)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if got := v.sh("cat /tmp/hup"); got != "hup\n" {
		t.Errorf("no SIGHUP: %q", got)
	}
}

// testInside checks what user code sees of the machine, and what it can't do.
func testInside(t *testing.T, v *testVM, b guestapi.Bind) {
	for script, want := range map[string]string{
		"id -u":                                                     "0\n",
		"hostname; cat /etc/hostname":                               "box\nbox\n",
		"grep kept /etc/hosts":                                      "10.0.0.1 kept\n",
		"grep -c 'fdaa:.* box' /etc/hosts":                          "1\n",
		"wc -c < /etc/machine-id":                                   "33\n",
		"grep -c 0123456789abcdef /etc/machine-id || true":          "0\n",
		"touch /data/mine; stat -c %u /data/mine":                   "0\n",
		"cat /proc/1/comm":                                          "init\n",
		"readlink /proc/1/exe || echo no":                           "no\n",
		"readlink /proc/1/fd/3 || echo no":                          "no\n",
		"mount -t tmpfs x /tmp 2>/dev/null || echo no":              "no\n",
		"unshare -U true 2>/dev/null || echo no":                    "no\n",
		"cat /run/sluice/boot.json 2>/dev/null || echo no":          "no\n",
		"ip -6 addr show eth0 | grep -c fdaa:0:1:0:1:0:5:2":         "1\n",
		"echo x > /proc/sys/kernel/hostname 2>/dev/null || echo no": "no\n",
		"echo " + string(b.Machine) + " | grep -c $SLUICE_MACHINE":  "1\n",
	} {
		if got := v.sh(script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// testLongCommand: a command that no query carries comes as a message. What is too long for the
// container's init, or for the kernel, is refused by its size, or as a shell would.
func testLongCommand(t *testing.T, v *testVM) {
	run := func(args ...string) result {
		data, err := json.Marshal(guestapi.ExecCommand{
			Cmd: append([]string{"sh", "-c", "echo $# $LONG"}, args...), Env: []string{"LONG=yes"}})
		if err != nil {
			t.Fatal(err)
		}
		return v.exec(url.Values{"command": {"1"}}, append([]byte{guestapi.FrameCommand}, data...))
	}
	if r := run(slices.Repeat([]string{"argument"}, 50_001)...); r.code != 0 ||
		r.stdout != "50000 yes\n" {
		t.Errorf("50,000 arguments: %+v", r)
	}
	if r := run("x", strings.Repeat("x", 200<<10)); r.code != 126 ||
		!strings.Contains(r.stderr, "too long") {
		t.Errorf("one of 200 KiB: code %d, %q", r.code, r.stderr)
	}
	if r := run(slices.Repeat([]string{"argument"}, 200_000)...); r.failure.Kind != errs.Invalid ||
		!strings.Contains(r.failure.Message, "at most") {
		t.Errorf("more than fits: %+v", r.failure)
	}
	if r := v.exec(url.Values{"command": {"1"}},
		stdin("ls")); r.failure.Kind != errs.Invalid {
		t.Errorf("no command in the first message: %+v", r)
	}
}
