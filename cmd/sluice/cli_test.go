package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

var rewrite = flag.Bool("rewrite", false,
	"write what is printed into testdata; commit only what you understand")

// cli runs the command against an in-memory fleet.
type cli struct {
	t     *testing.T
	fleet *httpapitest.Fleet
	env   map[string]string
	stdin string
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	f := httpapitest.New()
	const token = "operator-token-for-tests"
	a, err := httpapi.New(httpapi.Config{OperatorToken: token,
		Version: "v0.1.0", LongPoll: 100 * time.Millisecond},
		httpapi.DepsOf(f, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return &cli{t: t, fleet: f, env: map[string]string{"SLUICE_URL": s.URL, "SLUICE_TOKEN": token}}
}

// run returns what one command prints and its exit code.
func (c *cli) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	return c.runContext(ctx, args...)
}

func (c *cli) runContext(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	var out, err bytes.Buffer
	d := &deps{stdin: strings.NewReader(c.stdin), stdout: &out, stderr: &err,
		env: func(k string) string { return c.env[k] }}
	code = run(ctx, d, args)
	return out.String(), err.String(), code
}

// must runs a command that has to succeed.
func (c *cli) must(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("sluice %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

const web = "name=web,cmd=busybox httpd -f -p 8080 -h /srv,port=8080,check=http:/"

// story is a fleet with something to show: a machine that was migrated, a drain that is blocked.
func story(t *testing.T) *cli {
	t.Helper()
	c := newCLI(t)
	c.must("machine", "create", "web-1", "--app", "shop", "--network", "prod", "--image", "base",
		"--env", "MODE=live", "--nofile", "4096", "--service", web)
	c.must("machine", "create", "db-1", "--app", "shop", "--network", "prod", "--image", "base",
		"--cpus", "0.5", "--memory", "1GiB", "--worker", "w2")
	c.must("worker", "drain", "w1", "--detach")
	c.fleet.Update(func(tx *httpapitest.Tx) {
		at := time.Date(2026, 11, 22, 12, 5, 0, 0, time.UTC)
		for _, d := range tx.Drains {
			d.Drain.State, d.Drain.Total, d.Drain.Moved = fleet.DrainBlocked, 2, 1
			d.Drain.Blockers = []fleet.Blocker{{Code: "no-capacity",
				Object: "machine/010000000000ff", Detail: "no worker has 64 GiB free",
				Since: at, Remedy: "sluice worker uncordon w2"}}
			d.Moves = []fleet.MoveView{{MachineName: "web-1",
				Move: fleet.Move{ID: "01MOVE", Machine: "01000000000001", From: "w1", To: "w2",
					Step: fleet.StepDone, PauseMS: 212.4, FinishedAt: at.Add(time.Second),
					Steps: []fleet.StepRecord{
						{Step: fleet.StepPlanned, At: at}, {Step: fleet.StepReserved, At: at,
							Note: "on w2"}, {Step: fleet.StepDone, At: at.Add(time.Second)}}}},
				{MachineName: "big-1", Move: fleet.Move{ID: "01STUCK", Machine: "010000000000ff",
					From: "w1", Step: fleet.StepPlanned,
					Steps:   []fleet.StepRecord{{Step: fleet.StepPlanned, At: at}},
					Blocker: &fleet.Blocker{Code: "no-capacity"}}}}
		}
		m := tx.Machines["01000000000001"]
		m.Machine.Placement.Worker, m.Machine.Placement.Address = "w2",
			fleet.PrivateAddress(1, 2, 1)
		tx.Events["01000000000001"] = append(tx.Events["01000000000001"],
			fleet.MachineEvent{Time: at, State: fleet.MachineCreated, Event: "launch",
				Source: "control", Info: map[string]string{"migrated": "true",
					"from": "w1", "to": "w2"}},
			fleet.MachineEvent{Time: at.Add(time.Second), State: fleet.MachineStarted,
				Event: "start", Source: "worker/w2"})
	})
	return c
}

func TestOutputs(t *testing.T) {
	c := story(t)
	for file, args := range map[string]string{
		"machine-list.txt": "machine list", "machine-list.json": "machine list --json",
		"machine-list-w2.txt": "machine list --worker w2",
		"machine-status.txt":  "machine status shop/web-1",
		"machine-status.json": "machine status web-1 --json",
		"machine-events.txt":  "machine events 01000000000001", "worker-list.txt": "worker list",
		"worker-show.txt":  "worker show w2",
		"worker-show.json": "worker show w1 --json", "drain-list.txt": "drain list",
		"drain-status.txt":  "drain status 01DRAIN0000000000000000003",
		"drain-status.json": "drain status 01DRAIN0000000000000000003 --json",
		"image-list.txt":    "image list",
	} {
		golden(t, file, c.must(strings.Fields(args)...))
	}
}

// TestHelp has every command's help in one file: what changes there, changes for users.
func TestHelp(t *testing.T) {
	var all strings.Builder
	var visit func(cmd *cobra.Command, path []string)
	visit = func(cmd *cobra.Command, path []string) {
		if len(path) == 0 || path[0] != "dev" && path[0] != "completion" {
			var out bytes.Buffer
			code := run(t.Context(), &deps{stdin: strings.NewReader(""), stdout: &out, stderr: &out,
				env: func(string) string { return "" }}, append(path, "--help"))
			if code != 0 {
				t.Fatalf("%v --help: exit %d", path, code)
			}
			all.WriteString("$ sluice " + strings.Join(append(path, "--help"),
				" ") + "\n" + strings.TrimSpace(out.String()) + "\n\n")
			if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Example == "" {
				t.Errorf("%s has no example", cmd.CommandPath())
			}
		}
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				visit(sub, append(append([]string(nil), path...), sub.Name()))
			}
		}
	}
	visit(newRootCommand(&deps{stdout: io.Discard, stderr: io.Discard,
		env: func(string) string { return "" }}), nil)
	golden(t, "help.txt", all.String())
}

// TestRefusals: each gives its exit code, an error and a remedy or a usage line, nothing on stdout,
// and changes nothing.
func TestRefusals(t *testing.T) {
	c := story(t)
	before := c.fleet.Mutations()
	for _, x := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"", 2, ""}, {"machine", 2, ""}, {"machine frobnicate", 2, "no verb"},
		{"machine list extra", 2, "does not take"},
		{"machine list --nope", 2, "unknown flag"}, {"machine status", 2, "needs a machine"},
		{"machine status web", 3, "try:"}, {"machine status none", 3, "try:"},
		{"machine create", 2, "needs a name"}, {"machine create x --app a", 2, "needs --network"},
		{"machine create x --app a --network n --image none", 3, "try:"},
		{"machine create web-1 --app shop --network prod --image base", 4, "already"},
		{"machine create Bad --app shop --network prod --image base", 2, "try:"},
		{"machine create x --app a --network n --image base --memory lots", 2, "size"},
		{"machine create x --app a --network n --image base --memory 100KiB", 2, "MiB"},
		{"machine create x --app a --network n --image base --disk 1.5GiB", 2, "GiB"},
		{"machine create x --app a --network n --image base --cpus -1", 2, "cpus"},
		{"machine create x --app a --network n --image base --env X", 2, "K=V"},
		{"machine create x --app a --network n --image base --service web", 2, "try:"},
		{"machine create x --app a --network n --image base --service-file /does/not/exist",
			2, "service file"},
		{"machine create x --app a --network n --image base --stop-timeout 301s", 2, "301"},
		{"machine create x --app a --network n --image base --nofile 0", 2, "--nofile out"},
		{"machine create x --app a --network n --image base --nofile 63", 2, "from 64 to 1048576"},
		{"machine create x --app a --network n --image base --worker w9", 3, "w9"},
		{"machine destroy web-1", 2, "--yes"}, {"machine destroy web --yes", 3, "web"},
		{"machine migrate web-1 --to w9", 3, "w9"}, {"machine exec web-1", 2, "command"},
		{"machine exec none -- true", 125, "none"},
		{"machine logs none", 3, "none"},
		{"machine logs web-1 --lines -2", 2, "--tail -2 is neither"},
		{"machine logs web-1 -n some", 2, "neither a number of lines nor all"},
		{"machine logs web-1 --since yesterday", 2, "neither a duration"},
		{"worker show w9", 3, "w9"}, {"worker drain", 2, "needs a worker"},
		{"worker drain w9", 3, "w9"}, {"worker drain w1", 4, "drain watch"},
		{"worker drain w2 --wait --detach", 2, "exclude"}, {"worker cordon w9", 3, "w9"},
		{"worker --name w1", 2, "needs --"},
		{"drain status none", 3, "none"}, {"drain cancel none", 3, "none"},
		{"drain watch none", 3, "none"},
		{"image create x", 2, "needs --from"}, {"image create x --from /does/not/exist", 3, "try:"},
		{"image create x --from /etc --include vim", 2, "--include"},
		{"image create x --from /dev/null --size 0", 2, "size"},
		{"disk info", 2, "URL"}, {"disk info nonsense", 2, "try:"},
		{"disk info --machine none", 3, "none"},
		{"disk checkpoint file:///x", 2, "URL"}, {"server", 2, ""},
		{"server --data /x --store mem://", 2, "needs"},
	} {
		stdout, stderr, code := c.run(strings.Fields(x.args)...)
		if code != x.code || !strings.Contains(stderr, x.stderr) {
			t.Errorf("sluice %s: exit %d, want %d; stderr %q, want %q", x.args, code, x.code,
				stderr, x.stderr)
		}
		if code != 0 && x.stderr != "" && stdout != "" {
			t.Errorf("sluice %s: refused, but stdout has %q", x.args, stdout)
		}
	}
	if got := c.fleet.Mutations(); got != before {
		t.Fatalf("%d mutations happened", got-before)
	}
}

func TestFindingTheFleet(t *testing.T) {
	c := newCLI(t)
	url, token := c.env["SLUICE_URL"], c.env["SLUICE_TOKEN"]
	dir := t.TempDir()
	data, err := json.Marshal(client.FleetFile{URL: url, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, client.FleetFileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		env  map[string]string
		args []string
		code int
	}{
		{map[string]string{"SLUICE_DIR": dir}, nil, 0},
		{nil, []string{"--dir", dir}, 0},
		{map[string]string{"SLUICE_DIR": "/does/not/exist"}, []string{"--dir", dir}, 0},
		{map[string]string{"SLUICE_URL": url, "SLUICE_TOKEN": token}, nil, 0},
		{map[string]string{"SLUICE_URL": url}, nil, exitUsage},
		{nil, nil, exitUsage},
		{map[string]string{"SLUICE_DIR": "/does/not/exist"}, nil, exitNotFound},
		{map[string]string{"SLUICE_URL": url, "SLUICE_TOKEN": "wrong"}, nil, exitDenied},
		{map[string]string{"SLUICE_URL": "http://127.0.0.1:1", "SLUICE_TOKEN": token}, nil,
			exitUnavailable},
	} {
		c.env = x.env
		_, stderr, code := c.run(append([]string{"worker", "list"}, x.args...)...)
		if code != x.code || code != 0 && !strings.Contains(stderr, "try: ") {
			t.Errorf("%v %v: exit %d, want %d: %s", x.env, x.args, code, x.code, stderr)
		}
	}
}
