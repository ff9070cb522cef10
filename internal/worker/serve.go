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
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

const (
	readHeaderTimeout = 10 * time.Second
	shutdownTimeout   = 100 * time.Millisecond
)

// serve serves the worker's API until ctx ends, and then cuts off the calls under way.
func (w *Worker) serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           w.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
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

// Handler is the worker's API, which the server calls with the worker token:
//
//	ANY /machines/{machine}/{rest…}   proxied to the platform of that machine
//	GET /debug/vms                    what is on this host
//	GET /healthz, /readyz             whether it lives, and can do its work; without a token
//	GET /metrics                      for Prometheus; the scrape token does, too
func (w *Worker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", expose.Alive)
	mux.HandleFunc("GET /readyz", expose.Ready(func(*http.Request) []string { return w.Lacks() }))
	if w.deps.Exposition != nil {
		mux.Handle("GET /metrics", w.authorized(w.deps.Exposition, w.cfg.ScrapeToken))
	}
	mux.Handle("GET /debug/vms", w.authorized(http.HandlerFunc(w.debugVMs)))
	mux.Handle("/machines/{machine}/{rest...}", w.authorized(w.proxy()))
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		writeError(rw, errs.New(errs.NotFound, "a worker has no %s", r.URL.Path))
	})
	return mux
}

// authorized passes on requests that carry the worker's token, or one of others; "" matches nobody.
func (w *Worker) authorized(next http.Handler, others ...string) http.Handler {
	known := append(others, w.cfg.Token)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token, ok := jsonhttp.Bearer(r), false
		for _, want := range known {
			ok = jsonhttp.SameToken(token, want) || ok
		}
		if !ok {
			writeError(rw, errs.New(errs.Denied, "worker %s doesn't know this token", w.cfg.Worker).
				WithRemedy("call machines through the server"))
			return
		}
		next.ServeHTTP(rw, r)
	})
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
