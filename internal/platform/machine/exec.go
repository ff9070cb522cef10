package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/session"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// live returns the container and the bind of a machine that runs; Unavailable otherwise.
func (p *Platform) live() (*inner.Container, guestapi.Bind, error) {
	now, _ := p.status.get()
	c := p.container.peek()
	if _, err := p.services.get(); err != nil || c == nil || now.Bind == nil || now.ReleaseAsked ||
		now.Health.State.Final() {
		return nil, guestapi.Bind{}, errs.New(errs.Unavailable,
			"the machine isn't running: its VM is %s", now.Health.State).
			WithRemedy("wait until it is started, or start it")
	}
	if err := pausedError(now.Health.Stall); err != nil {
		return nil, guestapi.Bind{}, err
	}
	return c, *now.Bind, nil
}

// getExec runs a command for a WebSocket; see guestapi for the frames.
func (p *Platform) getExec(w http.ResponseWriter, r *http.Request) {
	c, b, err := p.live()
	if err != nil {
		writeError(w, err)
		return
	}
	q, later := r.URL.Query(), r.URL.Query().Get("command") == "1"
	var opts session.Options
	if !later {
		if opts, err = execOptions(q, guestapi.ExecCommand{Cmd: q["cmd"], Env: q["env"]},
			b); err != nil {
			writeError(w, err)
			return
		}
	}
	// no browser comes here: there is a token
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	if later {
		if opts, err = longExecOptions(r.Context(), conn, q, b); err != nil {
			session.Refuse(r.Context(), conn, err)
			return
		}
	}
	began := time.Now()
	opts.Remark = func(exit innerapi.Exit) string { return p.oomWords(r.Context(), exit, began) }
	session.Serve(r.Context(), conn, c.Client(), opts, p.log)
}

// Bounds of a command that comes as a message. What fits is still bounded by the container's init,
// and by its kernel.
const (
	maxCommand  = 8 << 20
	commandWait = 30 * time.Second
)

// longExecOptions reads the command from the first message.
func longExecOptions(ctx context.Context, conn *websocket.Conn, q url.Values,
	b guestapi.Bind) (session.Options, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	conn.SetReadLimit(maxCommand)
	_, data, err := conn.Read(ctx)
	if err != nil {
		return session.Options{}, errs.Wrap(errs.Invalid, err, "read the command")
	}
	var command guestapi.ExecCommand
	if len(data) == 0 || data[0] != guestapi.FrameCommand {
		return session.Options{}, errs.New(errs.Invalid, "the first message is not the command")
	}
	if err := json.Unmarshal(data[1:], &command); err != nil {
		return session.Options{}, errs.Wrap(errs.Invalid, err, "read the command")
	}
	return execOptions(q, command, b)
}

func execOptions(q url.Values, command guestapi.ExecCommand,
	b guestapi.Bind) (session.Options, error) {
	if len(command.Cmd) == 0 || command.Cmd[0] == "" {
		return session.Options{}, errs.New(errs.Invalid,
			"exec without a command").WithRemedy("give cmd=, once for each argument")
	}
	more := map[string]string{}
	tty := q.Get("tty") == "1"
	if tty {
		more["TERM"] = "xterm-256color"
	}
	for _, kv := range command.Env {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return session.Options{}, errs.New(errs.Invalid,
				"environment %q is not of the form K=V", kv)
		}
		more[k] = v
	}
	start := innerapi.Start{Args: command.Cmd, Env: environment(b, more), Dir: q.Get("dir"),
		User: cmp.Or(q.Get("user"), b.Config.User), TTY: tty, NoFile: b.Config.NoFile,
		NoNewPrivileges: b.Config.NoNewPrivileges,
		Rows:            size(q.Get("rows"), 24), Cols: size(q.Get("cols"), 80), Leave: true}
	return session.Options{ID: "exec/" + rand.Text(), Start: start, Stdin: tty ||
		q.Get("stdin") == "1"}, nil
}

func size(s string, def uint16) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return def
	}
	return uint16(n)
}
