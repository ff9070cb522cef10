package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// platform is a stand-in for the platform in a machine, behind the API's proxy.
func platform(t *testing.T, session func(ctx context.Context, r *http.Request,
	conn *websocket.Conn)) (*client.Client, api.Machine) {
	t.Helper()
	return platformThat(t, func(http.ResponseWriter, *http.Request) bool { return true }, session)
}

// readCommand reads the first message of a session.
func readCommand(ctx context.Context, conn *websocket.Conn) (api.ExecCommand, error) {
	var command api.ExecCommand
	_, data, err := conn.Read(ctx)
	if err == nil && (len(data) == 0 || data[0] != api.FrameCommand) {
		err = errors.New("the first message is not the command")
	}
	if err == nil {
		err = json.Unmarshal(data[1:], &command)
	}
	return command, err
}

// platformThat is a platform that may refuse sessions before they begin.
func platformThat(t *testing.T, accepts func(http.ResponseWriter, *http.Request) bool,
	session func(ctx context.Context, r *http.Request,
		conn *websocket.Conn)) (*client.Client, api.Machine) {
	t.Helper()
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/exec") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"kind":"not_found","message":"no such thing"}`)
			return
		}
		if !accepts(w, r) {
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		session(r.Context(), r, conn)
	}))
	t.Cleanup(worker.Close)
	f := httpapitest.New()
	f.SetWorkerURL(worker.URL)
	c := newServer(t, f, nil)
	return c, create(t, c, "web-1")
}

func frame(kind byte, payload string) []byte { return append([]byte{kind}, payload...) }

func TestExecCarriesStreamsAndExitCode(t *testing.T) {
	type seen struct {
		Query   string
		Command api.ExecCommand
		Stdin   bytes.Buffer
		Control []api.ExecControl
	}
	got := make(chan *seen, 1)
	control := make(chan api.ExecControl, 1)
	c, m := platform(t, func(ctx context.Context, r *http.Request, conn *websocket.Conn) {
		s := &seen{Query: r.URL.RawQuery}
		var err error
		if s.Command, err = readCommand(ctx, conn); err != nil {
			return
		}
		for {
			kind, data, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageText {
				var m api.ExecControl
				_ = json.Unmarshal(data, &m)
				s.Control = append(s.Control, m)
			} else if data[0] == api.FrameStdin {
				s.Stdin.Write(data[1:])
				if s.Stdin.Len() == 5 {
					control <- api.ExecControl{Type: "resize", Rows: 24, Cols: 80}
				}
			} else if data[0] == api.FrameStdinEOF {
				break
			}
		}
		for len(s.Control) == 0 {
			_, data, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var m api.ExecControl
			_ = json.Unmarshal(data, &m)
			s.Control = append(s.Control, m)
		}
		got <- s
		_ = conn.Write(ctx, websocket.MessageBinary, frame(api.FrameStdout, "out"))
		_ = conn.Write(ctx, websocket.MessageBinary, frame(api.FrameStderr, "err"))
		_ = conn.Write(ctx, websocket.MessageBinary,
			frame(api.FrameStdout, strings.Repeat("x", 1<<20)))
		_ = conn.Write(ctx, websocket.MessageBinary, frame(api.FrameExit, "\x07"))
	})
	var stdout, stderr bytes.Buffer
	code, err := c.RunExec(t.Context(), m.ID, client.Exec{Cmd: []string{"sh", "-c", "a b"},
		Env: []string{"K=V"}, Dir: "/srv", TTY: true, Rows: 1, Cols: 2,
		Stdin: strings.NewReader("input"), Stdout: &stdout, Stderr: &stderr, Control: control})
	if err != nil || code != 7 {
		t.Fatalf("code %d, %v", code, err)
	}
	s := <-got
	if s.Query != "cols=2&command=1&dir=%2Fsrv&rows=1&stdin=1&tty=1" ||
		!slices.Equal(s.Command.Cmd, []string{"sh", "-c", "a b"}) ||
		!slices.Equal(s.Command.Env, []string{"K=V"}) || s.Stdin.String() != "input" {
		t.Errorf("query %s, stdin %q", s.Query, s.Stdin.String())
	}
	if len(s.Control) != 1 || s.Control[0] != (api.ExecControl{Type: "resize",
		Rows: 24, Cols: 80}) {
		t.Errorf("control %+v", s.Control)
	}
	if stdout.Len() != 3+1<<20 || stderr.String() != "err" {
		t.Errorf("%d bytes on stdout, %q on stderr", stdout.Len(), stderr.String())
	}
}

func TestExecFailures(t *testing.T) {
	answer := make(chan []byte, 1)
	c, m := platform(t, func(ctx context.Context, _ *http.Request, conn *websocket.Conn) {
		if data := <-answer; data != nil {
			_ = conn.Write(ctx, websocket.MessageBinary, data)
		}
	})
	answer <- frame(api.FrameError,
		`{"kind":"not_found","message":"no such program","remedy":"install it"}`)
	_, err := c.RunExec(t.Context(), m.ID, client.Exec{Cmd: []string{"x"}})
	var e *api.Error
	if !errors.Is(err, client.ErrNotRun) || !errors.As(err, &e) || e.Code != "not_found" ||
		e.Remedy != "install it" {
		t.Errorf("a command that can't be run: %v", err)
	}
	answer <- nil
	if _, err := c.RunExec(t.Context(), m.ID, client.Exec{Cmd: []string{"x"}}); !client.IsCode(err,
		"unavailable") || errors.Is(err, client.ErrNotRun) {
		t.Errorf("a lost connection: %v", err)
	}
	answer <- frame(api.FrameExit, "")
	if _, err := c.RunExec(t.Context(), m.ID,
		client.Exec{Cmd: []string{"x"}}); !client.IsCode(err, "internal") {
		t.Errorf("an exit without a code: %v", err)
	}
	if _, err := c.RunExec(t.Context(), "none",
		client.Exec{Cmd: []string{"x"}}); !client.IsCode(err, "not_found") {
		t.Errorf("no such machine: %v", err)
	}
	if _, err := c.Logs(t.Context(), m.ID, client.LogOptions{}); !client.IsCode(err, "not_found") {
		t.Errorf("logs: %v", err)
	}
}

// TestExecEndsThoughStdinBlocks: a command may end while nobody types.
func TestExecEndsThoughStdinBlocks(t *testing.T) {
	c, m := platform(t, func(ctx context.Context, _ *http.Request, conn *websocket.Conn) {
		_ = conn.Write(ctx, websocket.MessageBinary, frame(api.FrameExit, "\x00"))
	})
	silent, typist := io.Pipe()
	defer typist.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if code, err := c.RunExec(ctx, m.ID,
		client.Exec{Cmd: []string{"true"}, Stdin: silent}); err != nil || code != 0 {
		t.Fatalf("%d %v", code, err)
	}
}

// TestCommandsAreNotInTheURL: they are messages, however short; only a platform that doesn't know
// those gets a short one in the query, and a long one not at all.
func TestCommandsAreNotInTheURL(t *testing.T) {
	got := make(chan []string, 1)
	for name, old := range map[string]bool{"new": false, "old": true} {
		c, m := platformThat(t, func(w http.ResponseWriter, r *http.Request) bool {
			if !old || r.URL.Query().Get("command") != "1" {
				return true
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"kind":"invalid","message":"exec without a command"}`)
			return false
		}, func(ctx context.Context, r *http.Request, conn *websocket.Conn) {
			args := append([]string{"query"}, r.URL.Query()["cmd"]...)
			if r.URL.Query().Get("command") == "1" {
				conn.SetReadLimit(8 << 20)
				command, err := readCommand(ctx, conn)
				if err != nil {
					return
				}
				args = append([]string{"message"}, command.Cmd...)
			}
			got <- args
			_ = conn.Write(ctx, websocket.MessageBinary, frame(api.FrameExit, "\x00"))
		})
		for _, n := range []int{3, 12_000} {
			cmd := slices.Repeat([]string{"a"}, n)
			code, err := c.RunExec(t.Context(), m.ID, client.Exec{Cmd: cmd})
			if old && n > 1000 {
				if !client.IsCode(err, "invalid") || !strings.Contains(err.Error(), "too long") {
					t.Errorf("%s, %d arguments: %v", name, n, err)
				}
				continue
			}
			if err != nil || code != 0 {
				t.Fatalf("%s, %d arguments: exit %d, %v", name, n, code, err)
			}
			way := map[bool]string{false: "message", true: "query"}[old]
			if args := <-got; !slices.Equal(args, append([]string{way}, cmd...)) {
				t.Errorf("%s, %d arguments: %d arrived by %s", name, n, len(args), args[0])
			}
		}
	}
}
