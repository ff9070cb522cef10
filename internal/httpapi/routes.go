package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
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
	return []route{
		{"GET", "/healthz", roleAnybody, expose.Alive},
		{"GET", "/readyz", roleAnybody, expose.Ready(a.lacks)},
		{"GET", "/metrics", roleScraper, a.metrics},

		{"GET", "/v1/health", roleAnybody, a.health},
		{"GET", "/v1/openapi.yaml", roleAnybody, a.openAPI},
		{"GET", "/v1/server", roleOperator, a.server},

		{"POST", "/v1/machines", roleOperator, a.createMachine},
		{"GET", "/v1/machines", roleOperator, a.listMachines},
		{"GET", "/v1/machines/{ref}", roleOperator, a.getMachine},
		{"DELETE", "/v1/machines/{ref}", roleOperator, a.destroyMachine},
		{"POST", "/v1/machines/{ref}/start", roleOperator, a.startMachine},
		{"POST", "/v1/machines/{ref}/stop", roleOperator, a.stopMachine},
		{"POST", "/v1/machines/{ref}/migrate", roleOperator, a.migrateMachine},
		{"GET", "/v1/machines/{ref}/events", roleOperator, a.machineEvents},

		{"GET", "/v1/workers", roleOperator, a.listWorkers},
		{"GET", "/v1/workers/{id}", roleOperator, a.getWorker},
		{"POST", "/v1/workers/{id}/cordon", roleOperator, a.cordonWorker},
		{"POST", "/v1/workers/{id}/uncordon", roleOperator, a.uncordonWorker},

		{"POST", "/v1/drains", roleOperator, a.createDrain},
		{"GET", "/v1/drains", roleOperator, a.listDrains},
		{"GET", "/v1/drains/{id}", roleOperator, a.getDrain},
		{"GET", "/v1/drains/{id}/watch", roleOperator, a.watchDrain},
		{"POST", "/v1/drains/{id}/cancel", roleOperator, a.cancelDrain},
		{"GET", "/v1/moves/{id}", roleOperator, a.getMove},

		{"GET", "/v1/images", roleOperator, a.listImages},
		{"PUT", "/v1/images/{name}", roleOperator, a.createImage},

		{"POST", "/internal/v1/join", roleWorker, a.join},
		{"GET", "/internal/v1/workers/{id}/assignments", roleWorker, a.assignments},
		{"POST", "/internal/v1/workers/{id}/report", roleWorker, a.report},
	}
}

// newMux dispatches by path first, so that a wrong method on a known path is told so in our own form.
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
			errs.New(errs.Invalid, "%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " or "), r.Method))
	})
}

func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok", "version": a.cfg.Version})
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
	v := a.deps.Control.Server(r.Context())
	writeJSON(w, http.StatusOK, api.Server{FleetID: v.FleetID, Version: a.cfg.Version, StoreURL: v.StoreURL,
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
