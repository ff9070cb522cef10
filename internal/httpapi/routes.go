package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// route is one call: the method and path are those of api/openapi.yaml, which a test checks.
type route struct {
	method, path string
	verb         authz.Verb // that a caller needs
	about        about      // on what
	handle       http.HandlerFunc
}

// routes is the whole API but for what is proxied into machines.
func (a *API) routes() []route {
	machines := machineCalls{a.deps.Machines, a.deps.Moves, a.waits}
	workers, drains := workerCalls{a.deps.Workers}, drainCalls{a.deps.Drains, a.waits}
	tokens, log := tokenCalls{a.deps.Tokens}, auditCalls{a.deps.Audit}
	images := imageCalls{a.deps.Images}
	return slices.Concat([]route{
		{"GET", "/healthz", authz.None, aboutNothing, expose.Alive},
		{"GET", "/readyz", authz.None, aboutNothing, expose.Ready(a.lacks)},
		{"GET", "/metrics", authz.Admin, aboutMetrics, a.metrics},

		{"GET", "/v1/health", authz.None, aboutNothing, a.health},
		{"GET", "/v1/openapi.yaml", authz.None, aboutNothing, a.openAPI},
		{"GET", "/v1/signin", authz.None, aboutNothing, a.signIn},
		{"GET", "/v1/whoami", authz.None, aboutSome, a.whoAmI},
		{"GET", "/v1/server", authz.Read, aboutFleet, a.server},

		{"POST", "/v1/machines", authz.Operate, aboutSome, machines.createMachine},
		{"GET", "/v1/machines", authz.Read, aboutSome, machines.listMachines},
		{"GET", "/v1/machines/{ref}", authz.Read, aboutMachine, machines.getMachine},
		{"DELETE", "/v1/machines/{ref}", authz.Operate, aboutMachine, machines.destroyMachine},
		{"POST", "/v1/machines/{ref}/start", authz.Operate, aboutMachine, machines.startMachine},
		{"POST", "/v1/machines/{ref}/stop", authz.Operate, aboutMachine, machines.stopMachine},
		{"POST", "/v1/machines/{ref}/migrate", authz.Operate, aboutMachine,
			machines.migrateMachine},
		{"GET", "/v1/machines/{ref}/events", authz.Read, aboutMachine, machines.machineEvents},

		{"GET", "/v1/workers", authz.Read, aboutFleet, workers.listWorkers},
		{"GET", "/v1/workers/{id}", authz.Read, aboutFleet, workers.getWorker},
		{"POST", "/v1/workers/{id}/cordon", authz.Admin, aboutFleet, workers.cordonWorker},
		{"POST", "/v1/workers/{id}/uncordon", authz.Admin, aboutFleet,
			workers.uncordonWorker},

		{"POST", "/v1/drains", authz.Admin, aboutFleet, drains.createDrain},
		{"GET", "/v1/drains", authz.Read, aboutFleet, drains.listDrains},
		{"GET", "/v1/drains/{id}", authz.Read, aboutFleet, drains.getDrain},
		{"GET", "/v1/drains/{id}/watch", authz.Read, aboutFleet, drains.watchDrain},
		{"POST", "/v1/drains/{id}/cancel", authz.Admin, aboutFleet, drains.cancelDrain},
		{"GET", "/v1/moves/{id}", authz.Read, aboutMove, machines.getMove},

		{"GET", "/v1/images", authz.Read, aboutSome, images.listImages},
		{"PUT", "/v1/images/{name}", authz.Admin, aboutFleet, images.createImage},

		{"POST", "/v1/tokens", authz.Admin, aboutSome, tokens.createToken},
		{"GET", "/v1/tokens", authz.Admin, aboutSome, tokens.listTokens},
		{"GET", "/v1/tokens/{ref}", authz.Admin, aboutSome, tokens.getToken},
		{"DELETE", "/v1/tokens/{ref}", authz.Admin, aboutSome, tokens.revokeToken},

		{"GET", "/v1/store/credentials", authz.Admin, aboutFleet,
			storeCalls{a.deps.StoreKeys, a.deps.Workers, a.waits}.show},

		{"GET", "/v1/audit", authz.Admin, aboutFleet, log.listAudit},
		{"GET", "/v1/audit/verify", authz.Admin, aboutFleet, log.verifyAudit},
	}, a.identityRoutes(), a.keyRoutes(), a.quotaRoutes(), a.feedRoutes())
}

// identityRoutes are about who the fleet's parts are.
func (a *API) identityRoutes() []route {
	enrol, authority := enrolCalls{a.deps.Enrolment}, authorityCalls{a.deps.Enrolment}
	return []route{
		{"POST", "/v1/workers/{id}/revoke", authz.Admin, aboutFleet, enrol.revokeWorker},
		{"GET", "/v1/worker-tokens", authz.Admin, aboutFleet, enrol.listTokens},
		{"POST", "/v1/worker-tokens", authz.Admin, aboutFleet, enrol.createToken},
		{"DELETE", "/v1/worker-tokens/{id}", authz.Admin, aboutFleet, enrol.deleteToken},

		{"GET", "/v1/authority", authz.Read, aboutFleet, authority.get},
		{"GET", "/v1/authority.pem", authz.None, aboutNothing, authority.pem},
		{"POST", "/v1/authority/rotate", authz.Admin, aboutFleet, authority.rotate},
	}
}

// feedRoutes is what workers call.
func (a *API) feedRoutes() []route {
	feed, enrol := feedCalls{a.deps.Feed, a.waits}, enrolCalls{a.deps.Enrolment}
	return []route{
		// the join token in its body says who may call it
		{"POST", "/internal/v1/enroll", authz.None, aboutNothing,
			a.auditedJoin(enrol.enroll)},
		{"POST", "/internal/v1/workers/{id}/renew", authz.None, aboutFeed,
			a.auditedJoin(enrol.renew)},
		{"POST", "/internal/v1/join", authz.None, aboutFeed, feed.join},
		{"GET", "/internal/v1/workers/{id}/assignments", authz.None, aboutFeed,
			feed.assignments},
		{"POST", "/internal/v1/workers/{id}/report", authz.None, aboutFeed, feed.report},
		{"GET", "/internal/v1/workers/{id}/store-credentials", authz.None, aboutFeed,
			storeCalls{a.deps.StoreKeys, a.deps.Workers, a.waits}.give},
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
		byPath[r.path][r.method] = a.authorize(r.verb, r.about, r.handle)
	}
	for path, methods := range byPath {
		mux.Handle(path, byMethod(methods))
	}
	for _, i := range insideRoutes() {
		mux.Handle(pathInside+i.path, a.insideHandler(i))
	}
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
