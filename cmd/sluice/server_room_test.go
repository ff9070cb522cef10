package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
)

// serverPatience is for a server's start, or its end, on a host that has other things to do.
const serverPatience = 3 * time.Minute

// TestServerOnAFullDisk fills the file system of a server's state: the server ends by saying so, in
// one line with a remedy, and goes on with all that it has acknowledged once there is room. The
// audit log's spool has a file system of its own, or it would refuse the change that state can't
// hold: which of the two meets the end first is chance.
func TestServerOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	mountTmpfs(t, data, "320m")
	mountTmpfs(t, filepath.Join(data, "audit"), "64m")
	s := newServer(t, dir, data)
	s.start()
	s.image()
	fill(t, filepath.Join(data, "filler"))
	acked := s.createUntilRefused()
	if code := s.wait(); code != exitUnavailable {
		t.Errorf("the server's exit code is %d, want %d", code, exitUnavailable)
	}
	s.wantOneError(data)
	t.Logf("%d machines were acknowledged; the server said last:\n%s", len(acked),
		s.stderr.String())

	s.start() // it may get by for as long as nobody wants anything, or end again
	if code := s.stop(); code != exitOK && code != exitUnavailable ||
		strings.Contains(s.stderr.String(), "goroutine ") {
		t.Errorf("a start on a full disk: exit code %d\n%s", code, s.stderr.String())
	}
	t.Logf("on a full disk, the server said:\n%s", s.stderr.String())
	if err := os.Remove(filepath.Join(data, "filler")); err != nil {
		t.Fatal(err)
	}
	s.start()
	machines, err := s.client.Machines(t.Context(), client.MachineFilter{})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, m := range machines {
		there[m.Name] = true
	}
	for _, name := range acked {
		if !there[name] {
			t.Errorf("machine %s was acknowledged, and is lost", name)
		}
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("the server ends with exit code %d:\n%s", code, s.stderr.String())
	}
	if !strings.Contains(s.stderr.String(), "almost full") {
		t.Errorf("no warning that the directory is almost full:\n%s", s.stderr.String())
	}
}

// TestServerWithoutRoomForItsAuditLog fills the file system of the audit log's spool alone: changes
// are refused with a remedy, for none may happen unrecorded; reads go on; and with room again so do
// changes, in the same process.
func TestServerWithoutRoomForItsAuditLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	spool := filepath.Join(data, "audit")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, spool, "2m")
	s := newServer(t, dir, data)
	s.start()
	s.image()
	filler := filepath.Join(spool, "filler")
	fill(t, filler)
	acked := s.createUntilRefused()
	name := fmt.Sprintf("m%d", len(acked))
	err := s.create(t.Context(), name)
	var refused *api.Error
	if !errors.As(err, &refused) || !client.IsCode(err, "unavailable") ||
		!strings.Contains(err.Error(), "no space left on device") ||
		!strings.Contains(refused.Remedy, "make room") {
		t.Errorf("machine %s is refused by %#v, with the remedy %q", name, err, refused.Remedy)
	}
	machines, err := s.client.Machines(t.Context(), client.MachineFilter{})
	if err != nil || len(machines) != len(acked) {
		t.Errorf("%d machines are listed, want the %d acknowledged: %v", len(machines),
			len(acked), err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.create(t.Context(), name); err != nil {
		t.Errorf("with room again, machine %s is refused: %v", name, err)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("the server ends with exit code %d:\n%s", code, s.stderr.String())
	}
}

// mountTmpfs makes an empty file system of size bytes at dir, for as long as the test lasts.
func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// testServer is a server in a process of its own.
type testServer struct {
	t      *testing.T
	args   []string
	ready  string
	data   string
	cmd    *exec.Cmd
	ended  chan struct{}
	stderr *bytes.Buffer // to be read once it has ended
	client *client.Client
	url    string // the first of urls
	urls   []string
}

const testToken = "operator-token-for-tests"

func newServer(t *testing.T, dir, data string) *testServer {
	t.Helper()
	s := &testServer{t: t, data: data, ready: filepath.Join(dir, "ready")}
	t.Cleanup(func() {
		// else a failed test leaves it, and its file system in use
		if s.cmd != nil && s.cmd.Process != nil {
			_ = s.cmd.Process.Kill()
			<-s.ended
		}
	})
	s.args = []string{"server", "--data", data, "--listen", "127.0.0.1:0", "--ready-file", s.ready,
		"--store", "file://" + filepath.Join(dir, "pool")}
	file := filepath.Join(dir, "operator")
	if err := os.WriteFile(file, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = append(s.args, "--operator-token-file", file)
	return s
}

// start returns once the server takes requests, or has ended.
func (s *testServer) start() {
	s.t.Helper()
	if err := os.Remove(s.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	cmd, ended := exec.CommandContext(s.t.Context(), os.Args[0], s.args...), make(chan struct{})
	s.cmd, s.ended, s.stderr = cmd, ended, &bytes.Buffer{}
	cmd.Stderr = s.stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(ended) }()
	for began := time.Now(); time.Since(began) < serverPatience; {
		var urls []string
		if text, err := os.ReadFile(s.ready); err == nil && json.Unmarshal(text, &urls) == nil {
			ca, err := os.ReadFile(filepath.Join(s.data, "identity", "ca.pem"))
			if err != nil {
				s.t.Fatal(err)
			}
			if s.client, err = client.New(urls[0], testToken, client.WithCA(ca)); err != nil {
				s.t.Fatal(err)
			}
			s.url, s.urls = urls[0], urls
			return
		}
		select {
		case <-ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.t.Fatal("the server is never ready")
}

// wait returns the exit code of a server that ends by itself.
func (s *testServer) wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(serverPatience):
		_ = s.cmd.Process.Signal(unix.SIGQUIT)
		<-s.ended
		s.t.Fatalf("the server doesn't end:\n%s", s.stderr.String())
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *testServer) stop() int {
	s.t.Helper()
	_ = s.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	return s.wait()
}

// image makes what machines need to be created.
func (s *testServer) image() {
	s.t.Helper()
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "etc/hello", Mode: 0o644}),
		w.Close()); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.client.CreateImage(s.t.Context(), "tiny", 16<<20, &content); err != nil {
		s.t.Fatal(err)
	}
}

// createUntilRefused makes machines for as long as the server takes them, and returns the names of
// those that it has acknowledged.
func (s *testServer) createUntilRefused() (acked []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serverPatience)
	defer cancel()
	for {
		name := fmt.Sprintf("m%d", len(acked))
		err := s.create(ctx, name)
		if ctx.Err() != nil {
			s.t.Fatal("the server takes machines on a full disk for ever")
		}
		if err != nil {
			s.t.Logf("machine %s is refused: %v", name, err)
			return acked
		}
		acked = append(acked, name)
	}
}

func (s *testServer) create(ctx context.Context, name string) error {
	_, err := s.client.CreateMachine(ctx, api.CreateMachine{Name: name, App: "a", Network: "n",
		SkipStart: true, Config: api.MachineConfig{Image: "tiny"}})
	return err
}

// wantOneError wants one line of an error, with the directory, the cause and the remedy, and no
// stack trace.
func (s *testServer) wantOneError(dir string) {
	s.t.Helper()
	said := s.stderr.String()
	var lines []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "error: ") || strings.Contains(line, `"level":"ERROR"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], dir) ||
		!strings.Contains(lines[0], "no space left on device") {
		s.t.Errorf("error lines: %q", lines)
	}
	if !strings.Contains(said, "try: ") ||
		!strings.Contains(said, "free space on the file system of "+dir) {
		s.t.Errorf("no remedy:\n%s", said)
	}
	if strings.Contains(said, "goroutine ") || strings.Contains(said, "panic") {
		s.t.Errorf("a stack trace:\n%s", said)
	}
}

// fill takes all that is free of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
