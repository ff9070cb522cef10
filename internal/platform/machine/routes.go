package machine

import (
	"net/http"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// machineRoutes are what the fleet's API passes on, below /v1/machines/{id}/.
func (p *Platform) machineRoutes(mux *http.ServeMux) {
	at := func(method, path string) string { return method + " " + guestapi.PathMachine + path }
	mux.HandleFunc(at(http.MethodGet, "services"), p.getServices)
}

func (p *Platform) getServices(w http.ResponseWriter, _ *http.Request) {
	now, _ := p.status.get()
	writeJSON(w, now.Health.Services)
}
