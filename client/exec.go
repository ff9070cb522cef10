package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/api"
)

// Exec is a command to run inside a machine.
type Exec struct {
	Cmd        []string
	Env        []string // K=V, on top of the machine's own
	Dir        string   // "" means the root user's home
	TTY        bool
	Rows, Cols int       // the terminal's size, with TTY
	Stdin      io.Reader // nil: the process' stdin is empty
	Stdout     io.Writer // nil: discarded
	Stderr     io.Writer
	// Control carries window sizes and signals to the process while it runs; may be nil.
	Control <-chan api.ExecControl
}

// stdinChunk is how much of stdin goes into one message.
const stdinChunk = 32 << 10

// RunExec runs a command in a machine and returns its exit code, whatever that is. It fails if the
// command can't be run (see ErrNotRun) or the connection is lost. When ctx ends it cuts the
// connection, and the platform ends the command.
//
// If the command ends first, a blocked Read of Stdin is left behind. So pass a reader that you can
// close, or one that is used until the process ends.
func (c *Client) RunExec(ctx context.Context, ref string, e Exec) (int, error) {
	conn, err := c.dialExec(ctx, ref, e)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.CloseNow() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &execSession{conn: conn, exec: e}
	// Never waited for: a Read of a terminal that blocks does not end when the command does.
	var stdin sync.WaitGroup
	if e.Stdin != nil {
		stdin.Go(func() { s.copyStdin(ctx) })
	}
	var control sync.WaitGroup
	control.Go(func() { s.copyControl(ctx) })
	defer control.Wait()
	defer cancel()
	return s.receive(ctx)
}

// dialExec begins a session. The command goes as a message: what is on the way to the server, and
// logs URLs, doesn't learn it. A platform of an old release doesn't know such messages and says so
// before the session; it gets the command in the query, where that fits.
func (c *Client) dialExec(ctx context.Context, ref string, e Exec) (*websocket.Conn, error) {
	conn, err := c.dialExecBy(ctx, ref, e, url.Values{"command": {"1"}})
	if !IsCode(err, codeInvalid) {
		return conn, err
	}
	q := url.Values{"cmd": e.Cmd, "env": e.Env}
	if longCommand(q) {
		return nil, tooLongFor(err)
	}
	return c.dialExecBy(ctx, ref, e, q)
}

func (c *Client) dialExecBy(ctx context.Context, ref string, e Exec,
	q url.Values) (*websocket.Conn, error) {
	message := q.Has("command")
	if e.Dir != "" {
		q.Set("dir", e.Dir)
	}
	if e.TTY {
		q.Set("tty", "1")
		if e.Rows > 0 && e.Cols > 0 {
			q.Set("rows", strconv.Itoa(e.Rows))
			q.Set("cols", strconv.Itoa(e.Cols))
		}
	}
	if e.Stdin != nil {
		q.Set("stdin", "1")
	}
	target := *c.base
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	//nolint:bodyclose // Dial closes the body, or hands over what it has read of it
	conn, resp, err := websocket.Dial(ctx, target.String()+machinePath(ref, "exec")+"?"+q.Encode(),
		&websocket.DialOptions{HTTPClient: c.http, HTTPHeader: header})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols && resp.Body != nil {
			return nil, errorOf(resp)
		}
		return nil, c.transportError(ctx, err)
	}
	conn.SetReadLimit(16 << 20)
	if !message {
		return conn, nil
	}
	data, err := json.Marshal(api.ExecCommand{Cmd: e.Cmd, Env: e.Env})
	if err == nil {
		err = conn.Write(ctx, websocket.MessageBinary, append([]byte{api.FrameCommand}, data...))
	}
	if err != nil {
		_ = conn.CloseNow()
		return nil, c.transportError(ctx, err)
	}
	return conn, nil
}

// Bounds of a query. Servers on the way refuse 1 MiB of headers, and 10,000 parameters.
const (
	queryArguments = 1000
	queryBytes     = 32 << 10
)

// longCommand reports whether a command is too long for a query.
func longCommand(q url.Values) bool {
	return len(q["cmd"])+len(q["env"]) > queryArguments || len(q.Encode()) > queryBytes
}

// tooLongFor returns the error for a platform that is too old to accept a command in a message.
func tooLongFor(err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	return &api.Error{Code: e.Code,
		Message: "the command is too long for the release that this machine runs", Cause: e.Message,
		RequestID: e.RequestID,
		Remedy:    "hand its arguments over by stdin, or stop and start the machine, so that it gets the newest release"}
}

// execSession is one running command.
type execSession struct {
	conn *websocket.Conn
	exec Exec
}

// copyStdin sends stdin, and its end. A failed write shows in receive.
func (s *execSession) copyStdin(ctx context.Context) {
	buf := make([]byte, 1+stdinChunk)
	for {
		n, err := s.exec.Stdin.Read(buf[1:])
		if n > 0 {
			buf[0] = api.FrameStdin
			if s.conn.Write(ctx, websocket.MessageBinary, buf[:1+n]) != nil {
				return
			}
		}
		if err != nil {
			_ = s.conn.Write(ctx, websocket.MessageBinary, []byte{api.FrameStdinEOF})
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (s *execSession) copyControl(ctx context.Context) {
	for {
		select {
		case m, ok := <-s.exec.Control:
			if !ok {
				return
			}
			data, err := json.Marshal(m)
			if err != nil || s.conn.Write(ctx, websocket.MessageText, data) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// receive delivers output until the session's last message.
func (s *execSession) receive(ctx context.Context) (int, error) {
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			if cause := ctx.Err(); cause != nil {
				return 0, cause
			}
			var closed websocket.CloseError
			if errors.As(err, &closed) && closed.Code == websocket.StatusPolicyViolation {
				return 0, &api.Error{Code: "denied", Message: "the server has ended the command",
					Cause: closed.Reason, Err: err}
			}
			return 0, &api.Error{Code: codeUnavailable,
				Message: "the connection to the machine was lost before the command ended",
				Cause:   err.Error(),
				Remedy:  "look whether the machine has moved or stopped: sluice machine status",
				Err:     err}
		}
		if kind != websocket.MessageBinary || len(data) == 0 {
			continue
		}
		switch payload := data[1:]; data[0] {
		case api.FrameStdout:
			err = deliver(s.exec.Stdout, payload)
		case api.FrameStderr:
			err = deliver(s.exec.Stderr, payload)
		case api.FrameExit:
			if len(payload) == 0 {
				return 0, &api.Error{Code: codeInternal,
					Message: "the machine sent an exit message without an exit code"}
			}
			return int(payload[0]), nil
		case api.FrameError:
			return 0, execError(payload)
		}
		if err != nil {
			return 0, &api.Error{Code: codeInternal,
				Message: "the command's output can't be written", Cause: err.Error(), Err: err}
		}
	}
}

func deliver(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// ErrNotRun is wrapped by errors of commands that could not be started in the machine.
var ErrNotRun = errors.New("the command could not be run")

func execError(payload []byte) error {
	var e api.ExecError
	if err := json.Unmarshal(payload, &e); err != nil {
		return &api.Error{Code: codeInternal, Message: "the command could not be run",
			Cause: string(payload), Err: ErrNotRun}
	}
	return &api.Error{Code: e.Kind, Message: e.Message, Remedy: e.Remedy, Err: ErrNotRun}
}
