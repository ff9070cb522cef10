package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// TestHabits: what people type who know other tools works, and a typo is told what it may have
// meant.
func TestHabits(t *testing.T) {
	c := story(t)
	for _, x := range []struct {
		args, stdout, stderr string
		code                 int
	}{
		{"help", "Usage:", "", 0},
		{"help machine", "sluice machine [", "", 0},
		{"help machine create", "--image", "", 0},
		{"help machine ls", "List machines", "", 0},
		{"help nonsense", "", "no verb", 2},
		{"help machine creat", "", "did you mean: sluice machine create", 2},
		{"--version", "sluice ", "", 0},
		{"-v", "sluice ", "", 0},
		{"--version --json", `"version"`, "", 0},
		{"ls", "web-1", "", 0},
		{"ps", "web-1", "", 0},
		{"machine ls", "web-1", "", 0},
		{"machine ps --json", `"web-1"`, "", 0},
		{"worker ls", "w1", "", 0},
		{"image ls", "base", "", 0},
		{"drain ls", "01DRAIN", "", 0},
		{"rm web-1", "", "--yes", 2},
		{"machine rm web-1", "", "--yes", 2},
		{"disk rm", "", "disk destroy needs", 2},
		{"machin list", "", "did you mean: sluice machine", 2},
		{"machine lst", "", "did you mean: sluice machine list", 2},
		{"exec web-1", "", "did you mean: sluice machine exec", 2},
		{"machine drain w1", "", "sluice worker drain", 2},
		{"worker lsit", "", "did you mean: sluice worker list", 2},
		{"machine help", "sluice machine [", "", 0},
		{"machine help exec", "Run a command in a machine", "", 0},
		{"help machine exec", "Run a command in a machine", "", 0},
		{"machine help exce", "", "did you mean: sluice machine exec", 2},
		{"image cache help prune", "sluice image cache prune", "", 0},
		{"worker help drain", "Empty workers", "", 0},
		{"image cache prnue", "", "did you mean: sluice image cache prune", 2},
		{"completion bash", "__sluice", "", 0},
		{"machine list --worke w1", "", "did you mean: --worker", 2},
		{"worker drain w1 --wiat", "", "did you mean: --wait", 2},
		{"machine logs web-1 --folow", "", "did you mean: --follow", 2},
		{"machine exec web-1 --ttty sh", "", "did you mean: --tty", 2},
		{"machine exec --ttty web-1 sh", "", "did you mean: --tty", 2},
		{"machine list --jsno", "", "did you mean: --json", 2},
		{"machine list --zzzz", "", "unknown flag: --zzzz\nusage", 2},
		{"ls -o json", "", "did you mean: --json", 2},
		{"worker list --output json", "", "did you mean: --json", 2},
		{"rm -f web-1", "", "did you mean: --yes", 2},
		{"ls -a", "", "leave it out", 2},
		{"worker drain w1 --ignore-daemonsets", "", "leave it out", 2},
		{"machine list -z", "", "'z' in -z\nusage", 2},
		{"run -it debian bash", "", "did you mean: sluice machine create", 2},
		{"machine run", "", "did you mean: sluice machine create", 2},
		{"ssh web-1", "", "did you mean: sluice machine exec", 2},
		{"machine ssh web-1", "", "did you mean: sluice machine exec", 2},
		{"machine inspect web-1", "", "did you mean: sluice machine status;", 2},
		{"machine show web-1", "", "did you mean: sluice machine status;", 2},
		{"worker describe w1", "", "did you mean: sluice worker show;", 2},
		{"machine delete web-1", "", "did you mean: sluice machine destroy", 2},
		{"machine move web-1", "", "did you mean: sluice machine migrate", 2},
		{"get machines", "", "did you mean: sluice machine list, sluice machine status;", 2},
		{"get nodes", "", "did you mean: sluice worker list, sluice worker show;", 2},
		{"list machines", "", "did you mean: sluice machine list;", 2},
		{"describe machine web-1", "", "did you mean: sluice machine status;", 2},
		{"delete pod web-1", "", "did you mean: sluice machine destroy;", 2},
		{"drain w1", "", "did you mean: sluice worker drain w1;", 2},
		{"cordon w1", "", "did you mean: sluice worker cordon;", 2},
		{"attach web-1", "", "did you mean: sluice disk attach, sluice machine exec;", 2},
		{"disk ls", "", "try: a disk is a URL", 2},
		{"worker rm w1", "", "try: empty it", 2},
		{"worker add w3", "", "try: a worker joins by itself", 2},
		{"image rm base", "", "try: an image stays", 2},
		{"image inspect base", "", "try: sluice image list", 2},
		{"apps", "", "sluice machine list --app", 2},
		{"machine wait web-1", "", "wait by themselves", 2},
		{"machine create --name web-1", "", "leave it out: the name is an argument", 2},
		{"machine events web-1 -f", "", "leave it out: watch(1)", 2},
		{"machine start -a web-1", "", "'a' in -a\nusage", 2},
		{"machine logs web-1 --timestamps", "", "leave it out: each line has its time", 2},
		{"machine ls -q", "", "did you mean: --json", 2},
		{"ps --all", "", "leave it out: all are listed", 2},
		{"nodes", "", "did you mean: sluice worker", 2},
		{"vm list", "", "did you mean: sluice machine", 2},
		{"volume ls", "", "did you mean: sluice disk", 2},
		{"cp a web-1:/b", "", "try: copy through a command: tar", 2},
		{"machine cp a b", "", "try: copy through a command: tar", 2},
		{"machine restart web-1", "", "try: sluice machine stop", 2},
		{"machine snapshot web-1", "", "try: sluice disk checkpoint --machine", 2},
		{"disk snapshot x", "", "did you mean: sluice disk checkpoint", 2},
		{"auth login", "", "try: sluice login", 2},
		{"login", "", "SLUICE_TOKEN", exitNotFound},
		{"--nope", "", "unknown flag: --nope", 2},
		{"machine --nope", "", "unknown flag: --nope", 2},
		{"drain cancle x", "", "did you mean: sluice drain cancel", 2},
		{"qqqqqq", "", "its verbs are", 2},
	} {
		stdout, stderr, code := c.run(strings.Fields(x.args)...)
		if code != x.code || !strings.Contains(stdout, x.stdout) ||
			!strings.Contains(stderr, x.stderr) {
			t.Errorf("sluice %s: exit %d, want %d\nstdout %q\nstderr %q", x.args, code, x.code,
				stdout, stderr)
		}
	}
}

// TestErrorsAsJSON: with --json an error is one line of JSON on stderr, whatever it comes from.
func TestErrorsAsJSON(t *testing.T) {
	c := story(t)
	for args, want := range map[string]string{
		"machine --json status none": "not_found", "machine status --json": "invalid",
		"machine frobnicate --json":  "invalid",
		"--json machine list --nope": "invalid", "machine list --nope --json": "invalid",
		"machine list --worker --json":                             "",
		"machine create x --app a --json":                          "invalid",
		"machine create x --app a --network n --image none --json": "not_found",
		"worker drain w1 --json":                                   "conflict",
		"disk info nonsense --json":                                "invalid",
		"--json machine exec none true":                            "not_found",
		"machine destroy web-1 --json":                             "invalid",
		"image create x --from /does/not/exist --json":             "not_found",
		"server --json":                                            "invalid",
		"help nonsense --json":                                     "invalid",
	} {
		stdout, stderr, code := c.run(strings.Fields(args)...)
		if want == "" {
			continue // --json was the flag's value
		}
		var body api.ErrorBody
		if err := json.Unmarshal([]byte(stderr), &body); err != nil || code == 0 || stdout != "" {
			t.Errorf("sluice %s: exit %d, %v\nstdout %q\nstderr %q", args, code, err,
				stdout, stderr)
			continue
		}
		if e := body.Error; e.Code != want || e.Message == "" || e.Remedy == "" ||
			strings.Count(stderr, "\n") != 1 {
			t.Errorf("sluice %s: %s", args, stderr)
		}
	}
	c.env["SLUICE_TOKEN"] = "nonsense"
	if _, stderr, code := c.run("machine", "list", "--json"); code != exitDenied ||
		!strings.Contains(stderr, "SLUICE_TOKEN") || !json.Valid([]byte(stderr)) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// runner is a fleet whose machines answer each exec with one exit code, and tell what they were
// asked to run.
func runner(t *testing.T, code byte) (*cli, <-chan []string) {
	t.Helper()
	asked := make(chan []string, 1)
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/logs") {
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		var command api.ExecCommand
		_, data, err := conn.Read(r.Context())
		if err != nil || json.Unmarshal(data[1:], &command) != nil {
			return
		}
		asked <- append([]string{"tty=" + r.URL.Query().Get("tty")}, command.Cmd...)
		if conn.Write(r.Context(), websocket.MessageBinary, []byte{api.FrameExit, code}) == nil {
			_, _, _ = conn.Read(r.Context())
		}
	}))
	t.Cleanup(worker.Close)
	c := story(t)
	c.fleet.SetWorkerURL(worker.URL)
	return c, asked
}

// TestExecFlagsEndAtTheCommand: what follows the machine's name is the command's, with or without
// --.
func TestExecFlagsEndAtTheCommand(t *testing.T) {
	c, asked := runner(t, 0)
	for args, want := range map[string]string{
		"web-1 ls -la":            "tty= ls -la",
		"web-1 -- ls -la":         "tty= ls -la",
		"web-1 ls -- -la":         "tty= ls -- -la",
		"-it web-1 sh -c x":       "tty=1 sh -c x",
		"web-1 -it sh":            "tty=1 sh",
		"-i web-1 cat -n":         "tty= cat -n",
		"web-1 --tty -- bash -t":  "tty=1 bash -t",
		"-n web-1 env --json":     "tty= env --json",
		"--env A=b web-1 env -i":  "tty= env -i",
		"web-1 --env A=b -- -odd": "tty= -odd",
	} {
		_, stderr, code := c.run(append([]string{"machine", "exec"}, strings.Fields(args)...)...)
		if code != 0 {
			t.Errorf("%s: exit %d: %s", args, code, stderr)
			continue
		}
		if got := <-asked; !reflect.DeepEqual(got, strings.Split(want, " ")) {
			t.Errorf("%s: asked for %q", args, got)
		}
	}
	for _, args := range []string{"", "web-1", "web-1 --", "-i -n web-1 true", "web-1 --nope true",
		"--nope web-1 true"} {
		if _, stderr, code := c.run(append([]string{"machine", "exec"},
			strings.Fields(args)...)...); code != exitUsage ||
			!strings.Contains(stderr, "usage: sluice machine exec") {
			t.Errorf("%s: exit %d: %s", args, code, stderr)
		}
	}
	if stdout, _, code := c.run("machine", "exec", "web-1", "--help"); code != 0 ||
		!strings.Contains(stdout, "Usage:") {
		t.Errorf("help after the machine's name: exit %d: %s", code, stdout)
	}
}

// TestExecSaysNothingOfItsOwn: a command's exit code is passed on without a word, whatever it is.
func TestExecSaysNothingOfItsOwn(t *testing.T) {
	for _, code := range []byte{1, exitUsage, exitBlocked, 125, 130, 255} {
		c, _ := runner(t, code)
		if stdout, stderr, got := c.run("machine", "exec", "web-1", "false"); got != int(code) ||
			stdout != "" || stderr != "" {
			t.Errorf("exit %d, want %d; stdout %q, stderr %q", got, code, stdout, stderr)
		}
	}
}

// TestEmptyLogIsExplained: no output of a machine that runs nothing is no failure, and no riddle
// either.
func TestEmptyLogIsExplained(t *testing.T) {
	c, _ := runner(t, 0)
	if stdout, stderr, code := c.run("machine", "logs", "db-1"); code != 0 || stdout != "" ||
		!strings.Contains(stderr, "no services") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := c.run("machine", "logs", "db-1", "-f"); code != 0 ||
		!strings.Contains(stderr, "no services") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if _, stderr, code := c.run("machine", "logs", "web-1"); code != 0 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	c.fleet.Update(func(tx *httpapitest.Tx) {
		s := &tx.Machines["01000000000001"].Report.Services[0]
		s.State, s.Error = "failed", "nonesuch: command not found"
	})
	if _, stderr, code := c.run("machine", "logs", "web-1"); code != 0 ||
		!strings.Contains(stderr,
			"service web is failed: nonesuch: command not found; see: sluice machine status web-1") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// TestMigrateToWhereItIs changes nothing, and says so.
func TestMigrateToWhereItIs(t *testing.T) {
	c := story(t)
	before := c.fleet.Mutations()
	if out := c.must("machine", "migrate", "web-1", "--to", "w2"); !strings.Contains(out,
		"is on w2 already") {
		t.Error(out)
	}
	var move api.Move
	if err := json.Unmarshal([]byte(c.must("machine", "migrate", "web-1", "--to", "w2", "--json")),
		&move); err != nil || move.Step != "done" || move.To != "w2" || move.ID != "" {
		t.Errorf("%v %+v", err, move)
	}
	if n := c.fleet.Mutations(); n != before {
		t.Errorf("%d mutations", n-before)
	}
}

// TestUncleanStopIsTold: the line of a stop says when it was none that closed the disk.
func TestUncleanStopIsTold(t *testing.T) {
	c := story(t)
	c.fleet.Update(func(tx *httpapitest.Tx) {
		m := &tx.Machines["01000000000001"].Machine
		m.Desired, m.State, m.Reason = fleet.DesiredStopped, fleet.MachineStopped,
			"not cleanly: the platform does not answer"
	})
	if out := c.must("machine", "stop", "web-1"); !strings.Contains(out, "stopped (not cleanly") {
		t.Error(out)
	}
}

// TestEventsHaveOneOrder: oldest first, as text and as JSON.
func TestEventsHaveOneOrder(t *testing.T) {
	c := story(t)
	var events []api.Event
	if err := json.Unmarshal([]byte(c.must("machine", "events", "web-1", "--json")),
		&events); err != nil || len(events) < 3 {
		t.Fatalf("%v, %d events", err, len(events))
	}
	lines := strings.Split(c.must("machine", "events", "web-1"), "\n")[1:]
	for i, e := range events {
		if !strings.Contains(lines[i], timestamp(e.Time)) {
			t.Errorf("line %d is %q, and the event is of %s", i, lines[i], timestamp(e.Time))
		}
	}
}

// TestBlockersOnce: a watcher is told of a blocker once, however its detail changes; where the
// result follows as soon as the drain stays blocked, it is left to that.
func TestBlockersOnce(t *testing.T) {
	blocked := api.Drain{State: "blocked",
		Blockers: []api.Blocker{{Code: "no-capacity", Object: "machine/x", Detail: "1 MiB short"}}}
	again := api.Drain{State: "running",
		Blockers: []api.Blocker{{Code: "no-capacity", Object: "machine/x", Detail: "2 MiB short"}}}
	for follows, want := range map[bool]int{false: 1, true: 0} {
		var out strings.Builder
		p := (&deps{stderr: io.Writer(&out),
			env: func(string) string { return "" }}).newDrainProgress(follows)
		for _, x := range []api.Drain{blocked, blocked, again} {
			if follows && x.State == "running" {
				continue
			}
			if err := p.show(x); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Count(out.String(), "blocked:"); got != want {
			t.Errorf("result follows %v: told %d times\n%s", follows, got, out.String())
		}
	}
}

// TestCordonSeveral: each worker is tried and told of, and the exit code is that of the worst.
func TestCordonSeveral(t *testing.T) {
	c := newCLI(t)
	if stdout, stderr, code := c.run("worker", "cordon", "w1", "w2", "--reason", "x"); code != 0 ||
		stdout != "w1  cordoned\nw2  cordoned\n" || stderr != "" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	stdout, stderr, code := c.run("worker", "uncordon", "nobody", "w1", "no one", "w2")
	if code != exitNotFound || stdout != "w1  ready\nw2  ready\n" ||
		strings.Count(stderr, "error: ") != 2 || !strings.Contains(stderr, `"nobody"`) ||
		!strings.Contains(stderr, `"no one"`) {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	var both []api.Worker
	if err := json.Unmarshal([]byte(c.must("worker", "cordon", "w1", "w2", "--json")),
		&both); err != nil || len(both) != 2 || both[1].State != "cordoned" {
		t.Errorf("%v %+v", err, both)
	}
	var one api.Worker
	if err := json.Unmarshal([]byte(c.must("worker", "uncordon", "w1", "--json")),
		&one); err != nil || one.State != "ready" {
		t.Errorf("%v %+v", err, one)
	}
	stdout, stderr, code = c.run("worker", "cordon", "nobody", "w1", "--json")
	var body api.ErrorBody
	if err := json.Unmarshal([]byte(stderr), &body); err != nil || body.Error.Code != "not_found" ||
		code != exitNotFound || !strings.HasPrefix(stdout, "[") {
		t.Errorf("exit %d, %v, %q, %q", code, err, stdout, stderr)
	}
}

// TestSeveralErrors: all are printed, and the highest code counts, wherever it comes.
func TestSeveralErrors(t *testing.T) {
	var out strings.Builder
	err := several{&api.Error{Code: "denied", Message: "first"},
		&api.Error{Code: "not_found", Message: "second"}}
	if code := finish(&deps{stderr: &out, env: func(string) string { return "" }}, nil,
		err); code != exitDenied || out.String() != "error: first\nerror: second\n" {
		t.Errorf("exit %d, %q", code, out.String())
	}
}
