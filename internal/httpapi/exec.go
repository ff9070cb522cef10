package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of an exec's messages. The platform has smaller ones of its own.
const (
	maxExecMessage = 16 << 20
	commandWait    = 30 * time.Second // for a command that comes as the first message
	closeReason    = 123              // bytes; RFC 6455, 5.5
)

// exec relays a command's session between the caller and the platform, message by message: so it
// knows the command wherever that comes, and can say why it ends a session.
func (a *API) exec(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		a.proxy.ServeHTTP(w, r) // no session: the platform says what it needs
		return
	}
	ctx, cancel := a.waits.untilStop(r.Context())
	defer cancel()
	t, err := a.locate(ctx, r)
	if err != nil {
		writeError(w, err)
		return
	}
	// A worker that is shut out meanwhile has nothing more to say.
	defer a.deps.Enrolment.OnRefused(t.worker.Worker, t.worker.Term, cancel)()
	s := &execRelay{record: a.auditExec, entry: entryOf(r, callOf(r)), log: a.deps.Log}
	if q := r.URL.Query(); q.Get("command") != "1" {
		s.known = true // to the platform, from when it is dialled
		if err := s.runs(q["cmd"]); err != nil {
			writeError(w, err)
			return
		}
	}
	if s.platform, err = a.dialExec(ctx, r, t); err != nil {
		s.over(err.Error())
		writeError(w, err)
		return
	}
	defer a.workers.spare(a.waits.lifetime, t.worker, t.url.String())
	defer func() { s.over("") }()
	defer func() { _ = s.platform.CloseNow() }()
	if s.caller, err = websocket.Accept(w, r, nil); err != nil {
		return // Accept has answered
	}
	defer func() { _ = s.caller.CloseNow() }()
	s.caller.SetReadLimit(maxExecMessage)
	s.platform.SetReadLimit(maxExecMessage)
	s.run(ctx)
}

// dialExec opens the session at the platform. An error of the platform is returned as such.
func (a *API) dialExec(ctx context.Context, r *http.Request, t target) (*websocket.Conn, error) {
	u := *t.url
	u.Path += "/machines/" + string(t.machine) + "/exec"
	u.RawQuery = r.URL.RawQuery
	header := http.Header{headerRequestID: {callOf(r).id}}
	//nolint:bodyclose // Dial closes the body, or hands over what it has read of it
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: a.workers.to(t.worker)}, HTTPHeader: header})
	if err == nil {
		return conn, nil
	}
	r = r.WithContext(context.WithValue(ctx, targetKey{}, t))
	if resp != nil && resp.Body != nil && resp.StatusCode >= http.StatusBadRequest {
		body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		var ge errs.Wire
		if readErr == nil && json.Unmarshal(body, &ge) == nil && ge.Kind != "" {
			return nil, ge.Err()
		}
	}
	return nil, proxyError(r, err)
}

// execRelay is one session.
type execRelay struct {
	caller, platform *websocket.Conn
	known            bool // the command is; else it comes as the first message
	entry            audit.Entry
	record           func(audit.Entry) error
	log              *slog.Logger
	exit             atomic.Pointer[string]
	ended            bool
}

// runs records that a command is about to be run. After an error it must not be.
func (s *execRelay) runs(cmd []string) error {
	s.entry.Exec = audit.ExecOf(cmd)
	return s.record(endedWith(s.entry, http.StatusSwitchingProtocols))
}

// over records how a command that was to run has ended, once. It is too late to refuse anything.
func (s *execRelay) over(why string) {
	if s.ended || s.entry.Exec == nil {
		return
	}
	s.ended = true
	e := endedWith(s.entry, http.StatusSwitchingProtocols)
	e.Call += " ended"
	e.Note = why
	if exit := s.exit.Load(); exit != nil {
		e.Note = *exit
	} else if why == "" {
		e.Note = "the connection ended before the command"
	}
	if err := s.record(e); err != nil {
		s.log.Warn("end of a command not audited", "request_id", e.RequestID, "error", err)
	}
}

// note remembers how the command ended.
func (s *execRelay) note(data []byte) {
	var how string
	switch {
	case len(data) == 2 && data[0] == guestapi.FrameExit:
		how = fmt.Sprintf("exit code %d", data[1])
	case len(data) > 0 && data[0] == guestapi.FrameError:
		how = "it could not be run"
	default:
		return
	}
	s.exit.Store(&how)
}

// run relays until a side has ended, or ctx. Whoever is left is told why.
func (s *execRelay) run(ctx context.Context) {
	if !s.known {
		if err := s.firstMessage(ctx); err != nil {
			s.refuse(ctx, err)
			return
		}
	}
	// Reads end with the connections: one that ends with ctx would close them without a word.
	life := context.WithoutCancel(ctx)
	stop := context.AfterFunc(ctx, func() { s.close(ctx) })
	defer stop()
	var pumps sync.WaitGroup
	pumps.Go(func() {
		code, reason := websocket.StatusInternalError, "the connection to the machine was lost"
		var closed websocket.CloseError
		if err := pump(life, s.platform, s.caller, s.note); errors.As(err, &closed) {
			code, reason = closed.Code, closed.Reason
		}
		_ = s.caller.Close(code, reason)
	})
	pumps.Go(func() {
		_ = pump(life, s.caller, s.platform, func([]byte) {})
		_ = s.platform.CloseNow() // which ends the command
	})
	pumps.Wait()
}

// pump passes messages on, and returns why it can't any more.
func pump(ctx context.Context, from, to *websocket.Conn, saw func([]byte)) error {
	for {
		kind, data, err := from.Read(ctx)
		if err != nil {
			return err
		}
		saw(data)
		if err := to.Write(ctx, kind, data); err != nil {
			return err
		}
	}
}

// firstMessage reads the command, and passes it on.
func (s *execRelay) firstMessage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	kind, data, err := s.caller.Read(ctx)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "read the command")
	}
	var command guestapi.ExecCommand
	if len(data) == 0 || data[0] != guestapi.FrameCommand ||
		json.Unmarshal(data[1:], &command) != nil {
		return errs.New(errs.Invalid, "the first message is not the command")
	}
	if err := s.runs(command.Cmd); err != nil {
		return err
	}
	if err := s.platform.Write(ctx, kind, data); err != nil {
		return errs.Wrap(errs.Unavailable, err, "hand the command over to the machine")
	}
	return nil
}

// refuse ends a session whose command was not run.
func (s *execRelay) refuse(ctx context.Context, err error) {
	data, encodeErr := json.Marshal(errs.ToWire(err))
	if encodeErr != nil {
		return
	}
	_ = s.caller.Write(ctx, websocket.MessageBinary,
		append([]byte{guestapi.FrameError}, data...))
	_ = s.caller.Close(websocket.StatusNormalClosure, "")
}

// close ends a session that may not go on, and says why.
func (s *execRelay) close(ctx context.Context) {
	code, why := websocket.StatusGoingAway, "the server stops"
	if cause := context.Cause(ctx); errs.Is(cause, errs.Denied) {
		code, why = websocket.StatusPolicyViolation, cause.Error()
	}
	_ = s.caller.Close(code, why[:min(len(why), closeReason)])
	_ = s.platform.CloseNow() // which ends the command
}
