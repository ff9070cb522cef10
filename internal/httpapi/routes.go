package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// route is one call: the method and path are those of api/openapi.yaml, which a test checks.
type route struct {
	method, path string
	role         role
	handle       http.HandlerFunc
}

const pathMachineRest = "/v1/machines/{ref}/{rest...}"

// routes is the whole API but for what is proxied into machines.
func (a *API) routes() []route {
	machines := machineCalls{a.deps.Machines, a.deps.Moves, a.waits}
	workers, drains := workerCalls{a.deps.Workers}, drainCalls{a.deps.Drains, a.waits}
	images, feed := imageCalls{a.deps.Images}, feedCalls{a.deps.Feed, a.waits}
	return []route{
		{"GET", "/healthz", roleAnybody, expose.Alive},
		{"GET", "/readyz", roleAnybody, expose.Ready(a.lacks)},
		{"GET", "/metrics", roleScraper, a.metrics},

		{"GET", "/v1/health", roleAnybody, a.health},
		{"GET", "/v1/openapi.yaml", roleAnybody, a.openAPI},
		{"GET", "/v1/server", roleOperator, a.server},

		{"POST", "/v1/machines", roleOperator, machines.createMachine},
		{"GET", "/v1/machines", roleOperator, machines.listMachines},
		{"GET", "/v1/machines/{ref}", roleOperator, machines.getMachine},
		{"DELETE", "/v1/machines/{ref}", roleOperator, machines.destroyMachine},
		{"POST", "/v1/machines/{ref}/start", roleOperator, machines.startMachine},
		{"POST", "/v1/machines/{ref}/stop", roleOperator, machines.stopMachine},
		{"POST", "/v1/machines/{ref}/migrate", roleOperator, machines.migrateMachine},
		{"GET", "/v1/machines/{ref}/events", roleOperator, machines.machineEvents},

		{"GET", "/v1/workers", roleOperator, workers.listWorkers},
		{"GET", "/v1/workers/{id}", roleOperator, workers.getWorker},
		{"POST", "/v1/workers/{id}/cordon", roleOperator, workers.cordonWorker},
		{"POST", "/v1/workers/{id}/uncordon", roleOperator, workers.uncordonWorker},

		{"POST", "/v1/drains", roleOperator, drains.createDrain},
		{"GET", "/v1/drains", roleOperator, drains.listDrains},
		{"GET", "/v1/drains/{id}", roleOperator, drains.getDrain},
		{"GET", "/v1/drains/{id}/watch", roleOperator, drains.watchDrain},
		{"POST", "/v1/drains/{id}/cancel", roleOperator, drains.cancelDrain},
		{"GET", "/v1/moves/{id}", roleOperator, machines.getMove},

		{"GET", "/v1/images", roleOperator, images.listImages},
		{"PUT", "/v1/images/{name}", roleOperator, images.createImage},

		{"POST", "/internal/v1/join", roleWorker, feed.join},
		{"GET", "/internal/v1/workers/{id}/assignments", roleWorker, feed.assignments},
		{"POST", "/internal/v1/workers/{id}/report", roleWorker, feed.report},
	}
}

// newMux dispatches by path first, so that a wrong method on a known path is told so in our own
// form.
func (a *API) newMux() http.Handler {
	mux := http.NewServeMux()
	byPath := make(map[string]map[string]http.HandlerFunc)
	for _, r := range a.routes() {
		if byPath[r.path] == nil {
			byPath[r.path] = make(map[string]http.HandlerFunc)
		}
		byPath[r.path][r.method] = a.authorize(r.role, r.handle)
	}
	for path, methods := range byPath {
		mux.Handle(path, byMethod(methods))
	}
	mux.Handle(pathMachineRest, a.authorize(roleOperator, a.proxy.ServeHTTP))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, errs.New(errs.NotFound, "there is no %s in this API", r.URL.Path).
			WithRemedy("GET /v1/openapi.yaml lists every call"))
	})
	return mux
}

func byMethod(methods map[string]http.HandlerFunc) http.Handler {
	allowed := make([]string, 0, len(methods))
	for m := range methods {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handle, ok := methods[r.Method]; ok {
			handle(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeErrorStatus(w, http.StatusMethodNotAllowed,
			errs.New(errs.Invalid, "%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " or "),
				r.Method))
	})
}

func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Write(w, http.StatusOK, map[string]string{"status": "ok", "version": a.cfg.Version})
}

func (a *API) lacks(r *http.Request) []string { return a.deps.Lacks(r.Context()) }

func (a *API) metrics(w http.ResponseWriter, r *http.Request) {
	if a.deps.Exposition == nil {
		writeError(w, errs.New(errs.NotFound, "this server has no metrics"))
		return
	}
	a.deps.Exposition.ServeHTTP(w, r)
}

func (a *API) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write([]byte(api.OpenAPI()))
}

func (a *API) server(w http.ResponseWriter, r *http.Request) {
	v := a.deps.Status.Server(r.Context())
	jsonhttp.Write(w, http.StatusOK,
		api.Server{FleetID: v.FleetID, Version: a.cfg.Version, StoreURL: v.StoreURL,
			Leader: true, Brake: v.Brake, Started: v.Started})
}

// Routes returns "METHOD /path" of every call but those that are proxied into machines.
func (a *API) Routes() []string {
	var out []string
	for _, r := range a.routes() {
		out = append(out, r.method+" "+r.path)
	}
	return out
}
