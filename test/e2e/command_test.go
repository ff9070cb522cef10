package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestCommandLine uses the commands as a person and a script do.
func TestCommandLine(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1})
	made := f.Sluice("machine", "create", "m", "--app", "test", "--network", "green", "--image",
		fleettest.Image,
		"--cpus", "0.5", "--memory", "128", "--worker", "w1", "--env", "FOO=two words",
		"--service", `name=web,cmd=httpd -f -p 8080 -h /srv,port=8080,check=tcp,needs=db`,
		"--service", `name=db,cmd=sh -c "echo db has $FOO $C; exec sleep 9999",env=C=3`)
	if made.Code != 0 {
		t.Fatalf("create: %+v", made)
	}
	t.Run("status", func(t *testing.T) { statusShowsAll(t, f) })
	t.Run("json", func(t *testing.T) { jsonIsValid(t, f) })
	t.Run("exec", func(t *testing.T) { execPassesThrough(t, f) })
	t.Run("terminal", func(t *testing.T) { execWithTerminal(t, f) })
	t.Run("logs", func(t *testing.T) { logsFollow(t, f) })
	t.Run("mistakes", func(t *testing.T) { mistakes(t, f) })
	t.Run("memory", func(t *testing.T) { memoryRunsOut(t, f) })
	t.Run("images", func(t *testing.T) { imagesAreRead(t, f) })
	t.Run("crash loop", func(t *testing.T) { crashLoops(t, f) })
	t.Run("a wait in vain says why", func(t *testing.T) {
		got := f.Sluice("machine", "create", "sick", "--app", "test", "--network", "green",
			"--image", fleettest.Image, "--cpus", "0.1", "--memory", "64",
			"--timeout", "3s", "--service", "name=good,cmd=sleep 9999", "--service",
			"name=bad,cmd=sleep 9999,check=tcp:81")
		if got.Code != 5 || !strings.Contains(got.Stderr, "cause: ") ||
			!strings.Contains(got.Stderr, "service bad is ") ||
			!strings.Contains(got.Stderr, "refused") ||
			strings.Contains(got.Stderr, "service good") {
			t.Errorf("%+v", got)
		}
		if gone := f.Sluice("machine", "destroy", "sick", "--yes"); gone.Code != 0 {
			t.Errorf("destroy: %+v", gone)
		}
	})
}

func statusShowsAll(t *testing.T, f *fleettest.Fleet) {
	m, err := f.Machine(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	got := f.Sluice("machine", "status", "test/m")
	for _, want := range []string{m.ID, m.InstanceID, m.PrivateIP, m.DiskURL, m.Release, "started",
		"w1", "green", "Event Logs", "web   ready"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("status does not show %q:\n%s", want, got.Stdout)
		}
	}
}

func jsonIsValid(t *testing.T, f *fleettest.Fleet) {
	for _, command := range []string{
		"machine list", "machine status m", "machine events m", "worker list", "worker show w1",
		"drain list", "image list",
		"disk info --machine m", "disk checkpoint --machine m one", "worker cordon w2",
		"worker uncordon w2", "version", "dev status",
	} {
		got := f.Sluice(append(strings.Fields(command), "--json")...)
		if got.Code != 0 || got.Stderr != "" || !json.Valid([]byte(got.Stdout)) {
			t.Errorf("%s: %+v", command, got)
		}
	}
	for line := range strings.Lines(f.Sluice("machine", "logs", "m", "--json").Stdout) {
		if !json.Valid([]byte(line)) {
			t.Errorf("logs: %q", line)
		}
	}
}

func execPassesThrough(t *testing.T, f *fleettest.Fleet) {
	megabyte := make([]byte, 1<<20)
	if _, err := rand.Read(megabyte); err != nil {
		t.Fatal(err)
	}
	if got := f.SluiceIn(bytes.NewReader(megabyte), "machine", "exec", "m", "--",
		"cat"); got.Code != 0 || got.Stdout != string(megabyte) || got.Stderr != "" {
		t.Errorf("1 MiB through cat: exit code %d, %d bytes, %q", got.Code,
			len(got.Stdout), got.Stderr)
	}
	for _, c := range []struct {
		code           int
		stdout, stderr string
		args           []string
	}{
		{0, "two words\n", "", []string{"m", "--", "sh", "-c", "echo $FOO"}},
		{0, "x /tmp\n", "", []string{"m", "--env", "X=x", "--workdir", "/tmp", "--", "sh", "-c",
			"echo $X $PWD"}},
		{77, "out\n", "err\n", []string{"m", "--", "sh", "-c", "echo out; echo err >&2; exit 77"}},
		{137, "", "", []string{"m", "--", "sh", "-c", "kill -9 $$"}},
		{126, "", "/etc/passwd", []string{"m", "--", "/etc/passwd"}},
		{126, "", "/nowhere", []string{"m", "--workdir", "/nowhere", "--", "true"}},
		{127, "", "nonesuch", []string{"m", "--", "nonesuch"}},
		{125, "", "nobody", []string{"nobody", "--", "true"}},
		{2, "", "usage:", []string{"m"}},
	} {
		got := f.SluiceIn(strings.NewReader(""), append([]string{"machine", "exec"}, c.args...)...)
		if got.Code != c.code || got.Stdout != c.stdout ||
			!strings.Contains(got.Stderr, c.stderr) || c.stderr == "" && got.Stderr != "" {
			t.Errorf("exec %q: %+v", c.args, got)
		}
	}
	// timeout(1) sends its signal twice, to the process and to its group: the command gets it once.
	got := fleettest.Run(t, "timeout", append(os.Environ(), "SLUICE_DIR="+f.Dir), nil, "-s", "INT",
		"2", f.Binary(), "machine", "exec", "m",
		"--no-stdin", "--", "sh", "-c",
		`trap 'echo interrupted; exit 5' INT; while :; do usleep 20000; done`)
	if got.Stdout != "interrupted\n" || strings.Contains(got.Stderr, "cut") {
		t.Errorf("after one signal: %+v", got)
	}
}

// execWithTerminal gives the command a terminal, resizes it and interrupts what runs on it.
func execWithTerminal(t *testing.T, f *fleettest.Fleet) {
	cmd := exec.CommandContext(t.Context(), f.Binary(), "machine", "exec", "m", "--tty", "--", "sh")
	cmd.Env = append(os.Environ(), "SLUICE_DIR="+f.Dir, "TERM=xterm")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 31, Cols: 101})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	bound := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	seen := &transcript{t: t, terminal: terminal}
	seen.say("stty size\n", "31 101")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	seen.say("until stty size | grep -q 24; do usleep 20000; done; stty size\n", "24 80")
	// it speaks once it has the terminal
	seen.say("sh -c 'echo a\"\"sleep; exec sleep 99'\n", "asleep")
	seen.say("\x03", "^C")
	seen.say("echo code=$?\n", "code=130")
	if _, err := terminal.WriteString("exit 7\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, terminal) // ends with an error when the command has
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("the terminal's shell ended as %v", err)
	}
}

type transcript struct {
	t        *testing.T
	terminal *os.File
	text     string
}

// say types something and waits for an answer, for as long as the command lives.
func (s *transcript) say(input, answer string) {
	s.t.Helper()
	if _, err := s.terminal.WriteString(input); err != nil {
		s.t.Fatal(err)
	}
	for buf := make([]byte, 1024); !strings.Contains(s.text, answer); {
		n, err := s.terminal.Read(buf)
		s.text += string(buf[:n])
		if err != nil {
			s.t.Fatalf("no %q after %q: %v\n%s", answer, input, err, s.text)
		}
	}
	_, s.text, _ = strings.Cut(s.text, answer)
}

func logsFollow(t *testing.T, f *fleettest.Fleet) {
	if got := f.Sluice("machine", "logs", "m", "--service", "db"); got.Code != 0 ||
		!strings.Contains(got.Stdout, "db stdout db has two words 3") {
		t.Errorf("logs: %+v", got)
	}
	if got := f.Sluice("machine", "logs", "m", "--service", "nonesuch"); got.Code != 3 {
		t.Errorf("logs of no service: %+v", got)
	}
	cmd := exec.CommandContext(t.Context(), f.Binary(), "machine", "logs", "m", "--follow",
		"--service", "db")
	cmd.Env = append(os.Environ(), "SLUICE_DIR="+f.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	bound := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer bound.Stop()
	read := func(n int) (lines int) {
		for buf := make([]byte, 1); lines < n; {
			if _, err := out.Read(buf); err != nil {
				t.Fatalf("logs --follow ended after %d lines: %v", lines, err)
			}
			lines += bytes.Count(buf, []byte("\n"))
		}
		return lines
	}
	read(1)
	if err := f.SignalService(t.Context(), "m", "db", "restart"); err != nil {
		t.Fatal(err)
	}
	read(1)
}

// mistakes checks exit codes and remedies, and that nothing was changed.
func mistakes(t *testing.T, f *fleettest.Fleet) {
	create := "machine create x --app test --network green --image " + fleettest.Image
	for _, c := range []struct {
		code          int
		command, says string
	}{
		{2, "bogus", `"bogus" is no verb of sluice; its verbs are: audit ca dev`},
		{2, "machine bogus", "its verbs are: create"},
		{2, "machine list --bogus", "--bogus"},
		{2, "machine create x --app test", "--network"},
		{4, strings.Replace(create, " x ", " m ", 1),
			"try: choose another name, or: sluice machine destroy test/m"},
		{2, strings.Replace(create, " x ", " X ", 1), "try: use 1 to 63 lower-case"},
		{3, create + "nope", "sluice image list"},
		{3, create + " --worker w9", "try: the workers are: w1, w2"},
		{2, create + " --cpus 0", "try: "},
		{2, create + " --cpus -1", "try: "},
		{2, create + " --memory 0", "try: "},
		{2, create + " --memory 1TiB", "try: ask for at most that, or add a larger worker"},
		{2, create + " --disk 1MiB", "try: "},
		{2, create + " --disk 17TiB", "try: "},
		{2, create + " --env FOO", "try: "},
		{2, create + " --stop-timeout 301s", "try: "},
		{2, create + " --stop-signal SIGFOO", "try: use SIGTERM"},
		{2, create + " --service name=a,cmd=x,needs=b", "try: "},
		{2, create + " --service name=a,cmd=x,needs=b --service name=b,cmd=x,needs=a", "try: "},
		{2, create + " --service name=a,cmd=x --service name=a,cmd=x", "try: "},
		{3, "machine status nobody", "try: list them: sluice machine list"},
		{3, "machine destroy nobody --yes", "try: "},
		{2, "machine destroy m", "--yes"},
		{3, "machine migrate m --to w9", "try: the workers are: w1, w2"},
		{3, "worker show w9", "try: the workers are"},
		{3, "worker drain w9", "try: the workers are"},
		{3, "drain status nope", "try: list them: sluice drain list"},
		{3, "drain cancel nope", "try: list them"},
		{2, "disk info bogus", "try: use file:///directory or s3://bucket/prefix"},
	} {
		got := f.Sluice(strings.Fields(c.command)...)
		if got.Code != c.code || got.Stdout != "" || !strings.Contains(got.Stderr, c.says) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", c.command, got.Code, c.code, c.says,
				got.Stdout, got.Stderr)
		}
	}
	if list := f.Sluice("machine", "list"); strings.Count(list.Stdout, "\n") != 2 {
		t.Errorf("a mistake changed something:\n%s", list.Stdout)
	}
}
