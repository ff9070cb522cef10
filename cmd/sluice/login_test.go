package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/signin/dextest"
)

// person is somebody with a command line of his own, and a server at which he signs in.
type person struct {
	t   *testing.T
	dex *dextest.Dex
	env []string
}

func newPerson(t *testing.T, s *testServer, dex *dextest.Dex) *person {
	t.Helper()
	dir := t.TempDir()
	return &person{t, dex, []string{"PATH=" + os.Getenv("PATH"), beTheCommand + "=1",
		"XDG_CONFIG_HOME=" + dir, "SLUICE_CA_FILE=" + filepath.Join(s.data, "identity", "ca.pem")}}
}

// login runs sluice login, and does in a browser what it says.
func (p *person) login(who dextest.As, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"login"}, args...)...)
	cmd.Env = p.env
	var out, all bytes.Buffer
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	url := ""
	for lines := bufio.NewScanner(said); lines.Scan(); {
		line := lines.Text()
		fmt.Fprintln(&all, line)
		device, isDevice := strings.CutPrefix(line, "open ")
		enter, isCode := strings.CutPrefix(line, "and enter the code ")
		switch {
		case strings.HasPrefix(line, "https://"):
			_, err = p.dex.SignIn(line, who)
		case isDevice && strings.HasPrefix(device, "https://"):
			url = device
		case isCode:
			_, err = p.dex.EnterCode(url, enter, who)
		}
		if err != nil {
			p.t.Error(err)
			cancel()
		}
	}
	_ = cmd.Wait() // its exit code says all
	return out.String(), all.String(), cmd.ProcessState.ExitCode()
}

// run runs another command.
func (p *person) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = p.env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run() // its exit code says all
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

func (p *person) says(want int, text string, args ...string) {
	p.t.Helper()
	stdout, stderr, code := p.run(args...)
	if code != want || !strings.Contains(stdout+stderr, text) {
		p.t.Errorf("sluice %s: %d %s%s, want %d %q", strings.Join(args, " "), code, stdout, stderr,
			want, text)
	}
}

// TestPeopleSignIn with real commands, to a real server, by a real issuer, which is away when the
// server starts: operators notice nothing of that, and it is asked again until it is there.
func TestPeopleSignIn(t *testing.T) {
	t.Parallel()
	dex := dextest.Start(t, time.Hour)
	dex.Kill()
	dir := t.TempDir()
	s := newServer(t, dir, filepath.Join(dir, "data"))
	roles := filepath.Join(dir, "roles")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(roles, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("group authors read\nuser admin@example.com admin\n")
	s.args = append(s.args, "--oidc-issuer", dex.URL, "--oidc-client-id", dextest.ClientID,
		"--oidc-ca", dex.CAFile, "--oidc-roles", roles)
	s.start()
	if _, err := s.client.Workers(t.Context()); err != nil {
		t.Fatalf("an operator, while the issuer is away: %v", err)
	}
	user := newPerson(t, s, dex)
	user.says(exitUsage, "no fleet is named", "machine", "list")
	if _, stderr, code := user.login(dextest.Kilgore(), "--server", s.url); code !=
		exitUnavailable || !strings.Contains(stderr, "can't be asked") {
		t.Errorf("the issuer is away: %d %s", code, stderr)
	}
	dex.Restart(t)
	waitForKeys(t, s, dex)

	stdout, stderr, code := user.login(dextest.Kilgore(), "--server", s.url+"/")
	if code != exitOK || !strings.Contains(stdout, "oidc:kilgore@kilgore.trout") ||
		!strings.Contains(stdout, "group authors") || strings.Contains(stdout+stderr, "eyJ") {
		t.Fatalf("%d %s%s", code, stdout, stderr)
	}
	user.says(exitOK, "NAME", "machine", "list")
	user.says(exitOK, `"kind": "oidc"`, "whoami", "--json")
	user.says(exitDenied, "this needs admin on the whole fleet", "worker", "cordon", "w1")

	admin := newPerson(t, s, dex)
	admin.env = append(admin.env, "SLUICE_URL="+s.url)
	admin.says(exitUsage, "not signed in", "machine", "list")
	if stdout, stderr, code := admin.login(dextest.Admin(), "--device"); code != exitOK ||
		!strings.Contains(stdout, "user admin@example.com") {
		t.Fatalf("%d %s%s", code, stdout, stderr)
	}
	admin.says(exitDenied, "can't make one that lasts longer", "token", "create", "ci", "--verb",
		"read")
	admin.says(exitOK, "slt_", "token", "create", "ci", "--verb", "read", "--ttl", "1m")
	operator, err := s.client.Tokens(t.Context())
	if err != nil || len(operator) != 1 || operator[0].CreatedBy != "oidc:admin@example.com" {
		t.Errorf("%+v, %v", operator, err)
	}
	guest := newPerson(t, s, dex)
	if _, stderr, code := guest.login(dextest.Somebody("joe@example.com", "guests"), "--server",
		s.url); code != exitDenied || !strings.Contains(stderr, `("guests")`) {
		t.Errorf("without a role: %d %s", code, stderr)
	}
	isAudited(t, s)

	// A slip in the file changes nothing; shutting somebody out does.
	write("group authors\n")
	time.Sleep(2 * filesEvery)
	user.says(exitOK, "NAME", "machine", "list")
	write("group authors read\ndeny user kilgore@kilgore.trout\n")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, stderr, code := user.run("machine", "list")
		if code == exitDenied && strings.Contains(stderr, "shut out") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the roles are not read again: %d %s", code, stderr)
		}
	}
	user.says(exitOK, "signed out", "logout")
	user.says(exitUsage, "no fleet is named", "machine", "list")
}

// waitForKeys waits until the server has asked the issuer again, which it does by itself.
func waitForKeys(t *testing.T, s *testServer, dex *dextest.Dex) {
	t.Helper()
	p := newPerson(t, s, dex)
	for deadline := time.Now().Add(2 * time.Minute); ; {
		_, stderr, code := p.login(dextest.Kilgore(), "--server", s.url)
		if code == exitOK {
			return
		}
		if code != exitUnavailable || time.Now().After(deadline) {
			t.Fatalf("the issuer is back: %d %s", code, stderr)
		}
	}
}

// isAudited looks for what the admin has done.
func isAudited(t *testing.T, s *testServer) {
	t.Helper()
	var entries []api.AuditEntry
	for deadline := time.Now().Add(time.Minute); len(entries) < 2; time.Sleep(100 *
		time.Millisecond) {
		var err error
		entries, _, err = s.client.Audit(t.Context(),
			client.AuditQuery{Who: "oidc:admin@example.com"})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", entries, err)
		}
	}
	text, err := json.Marshal(entries)
	if p := entries[1].Person; err != nil || p == nil || p.Subject == "" ||
		strings.Join(p.By, ",") != "user admin@example.com" ||
		!strings.HasPrefix(p.Issuer, "https://127.0.0.1:") ||
		strings.Contains(string(text), "eyJ") {
		t.Errorf("%s, %v", text, err)
	}
}

// TestFlagsOfTheSignIn that don't go together are refused, and so are files that can't be used.
func TestFlagsOfTheSignIn(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("\n\ngroup a write\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := []string{"server", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0",
		"--store", "file://" + dir, "--operator-token-file", bad}
	for says, flags := range map[string][]string{
		"go together":         {"--oidc-issuer", "https://a"},
		"needs --oidc-issuer": {"--oidc-ca", bad},
	} {
		c := newCLI(t)
		_, stderr, code := c.run(append(base, flags...)...)
		if code != exitUsage || !strings.Contains(stderr, says) {
			t.Errorf("%v: %d %s", flags, code, stderr)
		}
	}
	for says, cfg := range map[string]peopleFlags{
		"line 3 of the roles": {roles: bad}, "read a file": {roles: filepath.Join(dir, "none")},
	} {
		cfg.cfg.Issuer, cfg.cfg.ClientID = "https://a", "x"
		if _, err := cfg.open(nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
