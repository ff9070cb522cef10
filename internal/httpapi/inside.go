package httpapi

import (
	"net/http"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// insideRoute is a path below a machine that its platform answers, and the verb that each method
// needs. Methods that aren't named need what paths that aren't named need.
type insideRoute struct {
	path  string
	verbs map[string]authz.Verb
	any   authz.Verb // of every method, if it isn't None
}

// unknownInside is the verb for what this release doesn't know of the platform's API: a newer
// platform may change something there.
const unknownInside = authz.Operate

const pathInside = "/v1/machines/{ref}/"

// insideRoutes are all that this release knows.
func insideRoutes() []insideRoute {
	get := func(v authz.Verb) map[string]authz.Verb { return map[string]authz.Verb{"GET": v} }
	return []insideRoute{
		{"exec", get(authz.Use), authz.None},
		{"logs", get(authz.Use), authz.None},
		{"services", get(authz.Read), authz.None},
		{"services/{name}/{action}", map[string]authz.Verb{"POST": authz.Use}, authz.None},
		{"ports/{port}", nil, authz.Use},
		{"ports/{port}/{path...}", nil, authz.Use},
		{"disk", get(authz.Read), authz.None},
		{"disk/stats", get(authz.Read), authz.None},
		{"checkpoints", get(authz.Read), authz.None},
		{"checkpoints/{name}", map[string]authz.Verb{"POST": authz.Operate}, authz.None},
		{"{rest...}", nil, unknownInside},
	}
}

// of returns the verb that a method needs.
func (i insideRoute) of(method string) authz.Verb {
	if i.any != authz.None {
		return i.any
	}
	if v, ok := i.verbs[method]; ok {
		return v
	}
	return unknownInside
}

// insideHandler passes calls on to the machine, each with the verb that it needs.
func (a *API) insideHandler(i insideRoute) http.HandlerFunc {
	next := a.proxy.ServeHTTP
	switch i.path {
	case "exec":
		next = a.bounded(fleet.QuotaExecs, a.exec)
	case "logs":
		next = a.bounded(fleet.QuotaLogs, next)
	}
	byVerb := map[authz.Verb]http.HandlerFunc{}
	for v := authz.Read; v <= authz.Admin; v++ {
		byVerb[v] = a.authorize(v, aboutMachine, next)
	}
	return func(w http.ResponseWriter, r *http.Request) { byVerb[i.of(r.Method)](w, r) }
}

// InsideRoutes returns "METHOD /path" of what is passed on to machines, with "any" for all methods.
func (a *API) InsideRoutes() []string {
	var out []string
	for _, i := range insideRoutes() {
		if i.any != authz.None {
			out = append(out, "any "+pathInside+i.path)
		}
		for method := range i.verbs {
			out = append(out, method+" "+pathInside+i.path)
		}
	}
	return out
}
