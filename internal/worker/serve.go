package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

const (
	readHeaderTimeout = 10 * time.Second
	shutdownTimeout   = 100 * time.Millisecond
	idleTimeout       = 2 * time.Minute // longer than the server keeps a connection
	maxHeader         = 512 << 10       // more than the server takes
)

// serve serves the worker's API until ctx ends, and then cuts off the calls under way.
func (w *Worker) serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           w.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       connlimit.Context,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(w.deps.Listener); !errors.Is(err, http.ErrServerClosed) {
			return errs.Wrap(errs.Unavailable, err, "serve the worker's API")
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(quiet) == nil {
			return nil
		}
		return server.Close()
	})
	return group.Wait()
}

// Handler is the worker's API, which the server calls by its certificate:
//
//	ANY /machines/{machine}/{rest…}   proxied to the platform of that machine
//	GET /debug/vms                    what is on this host
//	GET /healthz, /readyz             whether it lives, and can do its work; for anybody
//	GET /metrics                      also with the scrape token, for Prometheus
func (w *Worker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", expose.Alive)
	mux.HandleFunc("GET /readyz", expose.Ready(func(*http.Request) []string { return w.Lacks() }))
	if w.deps.Exposition != nil {
		mux.Handle("GET /metrics", w.authorizedOr(w.cfg.ScrapeToken, w.deps.Exposition))
	}
	mux.Handle("GET /debug/vms", w.authorizedOr("", http.HandlerFunc(w.debugVMs)))
	mux.Handle("/machines/{machine}/{rest...}", w.authorizedOr("", w.proxy()))
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		writeError(rw, errs.New(errs.NotFound, "a worker has no %s", r.URL.Path))
	})
	return mux
}

// authorizedOr passes on requests of the server, and those that carry a token; "" is nobody's.
func (w *Worker) authorizedOr(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		err := w.fromServer(r)
		if err != nil && !jsonhttp.SameToken(jsonhttp.Bearer(r), token) {
			writeError(rw, err)
			return
		}
		connlimit.Known(r.Context())
		next.ServeHTTP(rw, r)
	})
}

// fromServer is Denied unless the server's certificate came with the request.
func (w *Worker) fromServer(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return errs.New(errs.Denied, "only the server may call worker %s", w.cfg.Worker).
			WithRemedy("call machines through the server")
	}
	name, err := w.deps.Identity.Check(r.TLS.PeerCertificates)
	if err != nil {
		return errs.Wrap(errs.Denied, err, "worker %s doesn't know who calls", w.cfg.Worker)
	}
	if err := identity.IsServer(name); err != nil {
		return errs.Wrap(errs.Denied, err, "only the server may call worker %s", w.cfg.Worker).
			WithRemedy("call machines through the server")
	}
	return nil
}

// DebugVM is one VM on this host, in the answer to GET /debug/vms.
type DebugVM struct {
	VM     fleet.VMID      `json:"vm"`
	Link   string          `json:"link,omitempty"`
	Pool   bool            `json:"pool,omitempty"` // empty, waiting
	Report *fleet.VMReport `json:"report,omitempty"`
	// what it asked of the store since this worker was started
	Gateway *gateway.Counts `json:"gateway,omitempty"`
}

func (w *Worker) debugVMs(rw http.ResponseWriter, _ *http.Request) {
	out := api.List[DebugVM]{Items: []DebugVM{}}
	w.mu.Lock()
	for _, m := range w.machines {
		m.mu.Lock()
		if r := m.report; r != nil && r.HasVM {
			d := DebugVM{VM: r.VM, Report: r}
			if m.gate != nil {
				counts := m.gate.Counts()
				d.Gateway = &counts
			}
			if m.reachable != nil {
				d.Link = m.reachable.HostLink()
			}
			out.Items = append(out.Items, d)
		}
		m.mu.Unlock()
	}
	w.mu.Unlock()
	for _, vm := range w.pool.List() {
		out.Items = append(out.Items, DebugVM{VM: vm.ID(), Link: vm.HostLink(), Pool: true})
	}
	jsonhttp.Write(rw, http.StatusOK, out)
}

func writeError(w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	jsonhttp.Write(w, errhttp.Status(kind), api.ErrorBody{Error: api.Error{
		Code: string(kind), Message: err.Error(), Remedy: errs.RemedyOf(err),
	}})
}
