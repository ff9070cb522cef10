package machine

import (
	"crypto/rand"
	"net/http"
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
	if _, err := p.services.get(); err != nil || c == nil || now.Bind == nil || now.Release || final(now.Health.State) {
		return nil, guestapi.Bind{}, errs.New(errs.Unavailable, "the machine isn't running: its VM is %s", now.Health.State).
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
	opts, err := execOptions(r, b)
	if err != nil {
		writeError(w, err)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // no browser comes here: there is a token
	if err != nil {
		return // Accept has answered
	}
	began := time.Now()
	opts.Remark = func(exit innerapi.Exit) string { return p.oomWords(r.Context(), exit, began) }
	session.Serve(r.Context(), conn, c.Client(), opts, p.log)
}

func execOptions(r *http.Request, b guestapi.Bind) (session.Options, error) {
	q := r.URL.Query()
	if len(q["cmd"]) == 0 || q["cmd"][0] == "" {
		return session.Options{}, errs.New(errs.Invalid, "exec without a command").WithRemedy("give cmd=, once for each argument")
	}
	more := map[string]string{}
	tty := q.Get("tty") == "1"
	if tty {
		more["TERM"] = "xterm-256color"
	}
	for _, kv := range q["env"] {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return session.Options{}, errs.New(errs.Invalid, "environment %q is not of the form K=V", kv)
		}
		more[k] = v
	}
	start := innerapi.Start{Args: q["cmd"], Env: environment(b, more), Dir: q.Get("dir"), User: q.Get("user"), TTY: tty,
		Rows: size(q.Get("rows"), 24), Cols: size(q.Get("cols"), 80), Leave: true}
	return session.Options{ID: "exec/" + rand.Text(), Start: start, Stdin: tty || q.Get("stdin") == "1"}, nil
}

func size(s string, def uint16) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return def
	}
	return uint16(n)
}
