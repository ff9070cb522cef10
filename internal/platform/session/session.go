// Package session runs one command for one client over a WebSocket: streams both ways, a terminal
// if asked for, and the exit code at the end.
//
// Invariants: everything that the command itself wrote is sent before its exit code. A client that
// reads slowly slows the command down, and nothing is dropped. While the client is connected, only
// the client ends the command's standard input. When the client disconnects, the command gets
// SIGHUP, and SIGKILL shortly after. A session ends with its command. Processes that the command
// has left in the background stay; their output is discarded.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// how long output is discarded once the client has gone; the command is killed before
	discardFor   = 3 * time.Second
	chunk        = 32 << 10         // bytes of output in one message, at most
	terminalTail = 2 * time.Second  // for a terminal that others have open after the command's end
	terminalRest = 256 << 10        // bytes of what they write meanwhile
	pingEvery    = 15 * time.Second // to notice a client that has vanished
	pongWithin   = 45 * time.Second
	stdinQueue   = 64 // messages of input that wait for the command
	readLimit    = 1 << 20
)

// Exit codes of shells for a command that can't be run.
const (
	exitNotFound = 127
	exitDenied   = 126
)

// Options of a session.
type Options struct {
	ID    string
	Start innerapi.Start
	Stdin bool // the client sends input; without it the command reads end of file at once
	// Remark returns a note for the user on how the command ended; "": none. May be nil.
	Remark func(innerapi.Exit) string
}

// Serve runs the command and returns when the session is over. It closes conn.
func Serve(ctx context.Context, conn *websocket.Conn, client *innerapi.Client, opts Options,
	log *slog.Logger) {
	conn.SetReadLimit(readLimit)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{conn: conn, log: log, opts: opts}
	err := s.run(ctx, client)
	switch {
	case err == nil:
		conn.Close(websocket.StatusNormalClosure, "")
	case ctx.Err() != nil || errors.Is(err, errGone):
		_ = conn.CloseNow() // it is gone, or is closing
	default:
		Refuse(ctx, conn, err)
	}
}

// Refuse sends the reason why a command could not be run, and closes conn.
func Refuse(ctx context.Context, conn *websocket.Conn, err error) {
	body, _ := json.Marshal(errs.ToWire(err))
	// or else the client has gone too
	_ = conn.Write(ctx, websocket.MessageBinary, append([]byte{guestapi.FrameError}, body...))
	conn.Close(websocket.StatusNormalClosure, "")
}

// errGone: the client has disconnected.
var errGone = errors.New("the client is gone")

type session struct {
	conn *websocket.Conn
	log  *slog.Logger
	opts Options
	// full is set while input waits for the command: the client's pongs aren't read then.
	full atomic.Bool
}

func (s *session) run(ctx context.Context, client *innerapi.Client) error {
	io3, err := openStreams(s.opts)
	if err != nil {
		return err
	}
	defer io3.close()
	process, err := client.Start(ctx, s.opts.ID, s.opts.Start, io3.child...)
	io3.closeChild()
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Denied) {
		return s.notRun(ctx, err)
	}
	if err != nil {
		return err
	}
	defer process.Close()
	if process.Terminal != nil {
		io3.useTerminal(process.Terminal)
	}
	err = s.converse(ctx, process, io3)
	if err == nil || errors.Is(err, errGone) {
		process.Close() // by which a command that still runs is hung up on
		io3.afterwards(ctx, err != nil)
	}
	return err
}

// notRun sends a shell's exit code and message for a command that can't be run.
func (s *session) notRun(ctx context.Context, err error) error {
	code := byte(exitDenied)
	if errs.Is(err, errs.NotFound) {
		code = exitNotFound
	}
	if err := s.say(ctx, innerMessage(err)); err != nil {
		return err
	}
	return s.send(ctx, guestapi.FrameExit, []byte{code})
}

// say sends the client's user a message on the command's standard error.
func (s *session) say(ctx context.Context, text string) error {
	if s.opts.Start.TTY {
		return s.send(ctx, guestapi.FrameStdout, []byte(text+"\r\n"))
	}
	return s.send(ctx, guestapi.FrameStderr, []byte(text+"\n"))
}

// innerMessage returns the message of the container's init, without that of the call.
func innerMessage(err error) string {
	var e *errs.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// converse copies input and output until the command has ended and all its output is sent.
func (s *session) converse(ctx context.Context, process *innerapi.Process, st *streams) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	exited := make(chan struct{})
	var input, output errgroup.Group
	input.Go(func() error {
		err := s.receive(ctx, process, st)
		cancel(errGone) // reading ends with the client, or with the session
		return err
	})
	input.Go(func() error { return s.ping(ctx) })
	for _, out := range st.outputs {
		output.Go(func() error { return s.pump(ctx, out, exited) })
	}
	exit, waitErr := process.Wait(ctx) // or the client has gone
	close(exited)
	for _, out := range st.outputs {
		out.interrupt()
	}
	err := errors.Join(waitErr, output.Wait())
	if ctx.Err() != nil {
		err = errGone
	}
	if err == nil {
		err = s.end(ctx, exit)
	}
	if err == nil {
		// ends receive; how the client closes is its business
		_ = s.conn.Close(websocket.StatusNormalClosure, "")
	}
	cancel(errGone)
	_ = input.Wait() // its end was caused above, or is the client's, which ctx tells
	return err
}

// end sends the client how the command ended.
func (s *session) end(ctx context.Context, exit innerapi.Exit) error {
	if s.opts.Remark != nil {
		if remark := s.opts.Remark(exit); remark != "" {
			if err := s.say(ctx, "sluice: "+remark); err != nil {
				return err
			}
		}
	}
	return s.send(ctx, guestapi.FrameExit, []byte{byte(exit.Code)})
}

// pump sends one output stream, until the client disconnects. Once the command has ended it sends
// the rest and returns: a child that still has the output open doesn't keep the session.
func (s *session) pump(ctx context.Context, out *output, exited <-chan struct{}) error {
	buf := make([]byte, chunk)
	for {
		n, err := out.read(buf, exited)
		if ctx.Err() != nil {
			return errGone
		}
		if n > 0 {
			if err := s.send(ctx, out.frame, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) send(ctx context.Context, frame byte, data []byte) error {
	message := make([]byte, 0, len(data)+1)
	message = append(append(message, frame), data...)
	if err := s.conn.Write(ctx, websocket.MessageBinary, message); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// ping ends the session of a client that has vanished without closing.
func (s *session) ping(ctx context.Context) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		within, cancel := context.WithTimeout(ctx, pongWithin)
		err := s.conn.Ping(within)
		cancel()
		if err != nil && ctx.Err() == nil && !s.full.Load() {
			_ = s.conn.CloseNow() // who doesn't answer needs no goodbye
			return err
		}
	}
}

// control is a text message from the client.
type control struct {
	Type string `json:"type"`
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`

	Signal string `json:"signal"` // as in SIGTERM
}

// receive handles the client's messages until it disconnects. Input waits in a bounded queue. So a
// command that doesn't read its input can still be resized, and a disconnect is noticed.
func (s *session) receive(ctx context.Context, process *innerapi.Process, st *streams) error {
	queue := make(chan []byte, stdinQueue)
	var feeding errgroup.Group
	feeding.Go(func() error { return st.feed(ctx, queue) })
	defer func() { _ = feeding.Wait() }()
	open := true
	finish := func() {
		if open {
			open = false
			close(queue)
		}
	}
	defer finish()
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			return err
		}
		switch {
		case kind == websocket.MessageText:
			s.control(process, data)
		case len(data) == 0:
		case data[0] == guestapi.FrameStdin && open:
			s.full.Store(true)
			select {
			case queue <- data[1:]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			s.full.Store(false)
		case data[0] == guestapi.FrameStdinEOF:
			finish()
		}
	}
}

// control applies a control message. It ignores types that it doesn't know, of newer clients.
func (s *session) control(process *innerapi.Process, data []byte) {
	var c control
	if json.Unmarshal(data, &c) != nil {
		return
	}
	switch {
	case c.Type == "resize" && process.Terminal != nil && c.Rows > 0 && c.Cols > 0:
		if err := resize(process.Terminal, c.Rows, c.Cols); err != nil &&
			!errors.Is(err, os.ErrClosed) {
			s.log.Debug("terminal not resized", "error", err)
		}
	case c.Type == "signal" && unix.SignalNum(c.Signal) != 0:
		if err := process.Signal(unix.SignalNum(c.Signal)); err != nil {
			s.log.Debug("signal not passed on", "signal", c.Signal, "error", err)
		}
	}
}

// resize keeps the terminal's descriptor non-blocking, which asking for it by Fd would end.
func resize(terminal *os.File, rows, cols uint16) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, setErr)
}
