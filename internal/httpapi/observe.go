package httpapi

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
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
		c := &call{id: ulid.Make().String()}
		if theirs := r.Header.Get(headerRequestID); validRequestID(theirs) {
			c.callers = theirs
		}
		r.Header.Set(headerRequestID, c.id)
		w.Header().Set(headerRequestID, c.id)
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
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Hijack is how a proxied upgrade (WebSocket) takes the connection over.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach Flush.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
