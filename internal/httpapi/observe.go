package httpapi

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	headerRequestID  = "X-Request-Id"
	maxRequestIDLen  = 64
	internalPathRoot = "/internal/"
)

// observe gives every request an id, which goes into the answer, the log and proxied calls, and
// logs it when it has been answered. An id that the caller gave is logged beside it. What is asked
// over and over is logged at debug level, unless it fails.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{id: ulid.Make().String(), began: time.Now().UTC()}
		if theirs := r.Header.Get(headerRequestID); validRequestID(theirs) {
			c.callers = theirs
		}
		r.Header.Set(headerRequestID, c.id)
		w.Header().Set(headerRequestID, c.id)
		if len(r.TransferEncoding) > 0 {
			// A length may have come with the chunks. Whoever is in front may have gone by it, and
			// takes what follows for the same request, or for another's (RFC 9112, 6.1).
			w.Header().Set("Connection", "close")
		}
		r = withCall(r, c)
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			took := time.Since(began)
			a.deps.Requests.Answered(r, rec.status, took)
			level := slog.LevelInfo
			if often(r.URL.Path) && rec.status < http.StatusBadRequest {
				level = slog.LevelDebug
			}
			a.deps.Log.LogAttrs(r.Context(), level, "request",
				slog.String("request_id", c.id), slog.String("callers_id", c.callers),
				slog.String("subject", c.subject.Name), slog.String("token", c.subject.Token),
				slog.String("method", r.Method),
				slog.String("path", r.URL.Path),
				slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes),
				slog.String("remote", r.RemoteAddr),
				slog.Float64("duration_ms", float64(took.Microseconds())/1000))
		}()
		next.ServeHTTP(rec, r)
	})
}

// often says that a call comes again and again: of workers, of probes and of scrapes.
func often(path string) bool {
	return strings.HasPrefix(path, internalPathRoot) || path == "/healthz" || path == "/readyz" ||
		path == "/metrics"
}

// validRequestID: a caller may choose the id, but not what else gets into the log.
func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestIDLen {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
			c == '-' || c == '_')
	}) < 0
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	code   string // of the error that is answered
	// seesFleet: who asks may know of the fleet's workers.
	seesFleet bool
	// answering, if set, is called once with the status before the answer goes out, which it
	// replaces if it fails.
	answering func(status int) error
	replaced  bool
}

func (w *recorder) WriteHeader(status int) {
	if w.replaced {
		return
	}
	final := status >= http.StatusOK || status == http.StatusSwitchingProtocols
	if w.status == 0 && final {
		if err := w.answer(status); err != nil {
			w.replace(err)
			return
		}
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// answer does what is to be done before the answer goes out.
func (w *recorder) answer(status int) error {
	do := w.answering
	if w.answering = nil; do == nil {
		return nil
	}
	return do(status)
}

// replace answers with an error; what the handler goes on to write is dropped.
func (w *recorder) replace(err error) {
	err = errs.Wrap(errs.Unavailable, err,
		"the call has ended, and could not be recorded in the audit log")
	w.replaced, w.status = true, http.StatusServiceUnavailable
	w.Header().Del("Content-Length")
	writeError(w.ResponseWriter, err)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.replaced {
		return len(p), nil
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Hijack is how a proxied upgrade (WebSocket) takes the connection over.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.answer(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach Flush.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// quietly handles what the HTTP server says of connections. Strangers who can't do the handshake
// are no news: there may be any number of them.
type quietly struct{ slog.Handler }

// Handle implements slog.Handler.
func (q quietly) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "TLS handshake error") {
		r.Level = slog.LevelDebug
	}
	if !q.Enabled(ctx, r.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}
