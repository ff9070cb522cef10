package httpapi

import (
	"net/http"
	"slices"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func answerWorker(w http.ResponseWriter, v fleet.WorkerView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, workerToAPI(v))
}

func (a *API) listWorkers(w http.ResponseWriter, r *http.Request) {
	views, err := a.deps.Control.Workers(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	workers := make([]api.Worker, 0, len(views))
	for _, v := range views {
		workers = append(workers, workerToAPI(v))
	}
	answerPage(w, r, workers, func(x api.Worker) string { return x.ID })
}

func (a *API) getWorker(w http.ResponseWriter, r *http.Request) {
	v, err := a.deps.Control.Worker(r.Context(), fleet.WorkerID(r.PathValue("id")))
	answerWorker(w, v, err)
}

func (a *API) cordonWorker(w http.ResponseWriter, r *http.Request) {
	var body api.Cordon
	if err := decode(w, r, maxBody, strict, &body); err != nil {
		writeError(w, err)
		return
	}
	v, err := a.deps.Control.Cordon(r.Context(), fleet.WorkerID(r.PathValue("id")), body.Reason)
	answerWorker(w, v, err)
}

func (a *API) uncordonWorker(w http.ResponseWriter, r *http.Request) {
	v, err := a.deps.Control.Uncordon(r.Context(), fleet.WorkerID(r.PathValue("id")))
	answerWorker(w, v, err)
}

func answerDrain(w http.ResponseWriter, status int, v fleet.DrainView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, status, drainToAPI(v))
}

func (a *API) createDrain(w http.ResponseWriter, r *http.Request) {
	var body api.CreateDrain
	if err := decode(w, r, maxBody, strict, &body); err != nil {
		writeError(w, err)
		return
	}
	workers, err := drainWorkers(body.Workers)
	if err != nil {
		writeError(w, err)
		return
	}
	v, err := a.deps.Control.StartDrain(r.Context(), workers, string(roleOperator))
	answerDrain(w, http.StatusCreated, v, err)
}

func drainWorkers(names []string) ([]fleet.WorkerID, error) {
	if len(names) == 0 {
		return nil, errs.New(errs.Invalid, "a drain needs at least one worker").WithRemedy("name it in workers")
	}
	var out []fleet.WorkerID
	for _, n := range names {
		if err := fleet.CheckName("worker", n); err != nil {
			return nil, err
		}
		if id := fleet.WorkerID(n); !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

func (a *API) listDrains(w http.ResponseWriter, r *http.Request) {
	views, err := a.deps.Control.Drains(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	drains := make([]api.Drain, 0, len(views))
	for _, v := range views {
		drains = append(drains, drainToAPI(v))
	}
	answerPage(w, r, drains, func(d api.Drain) string { return d.ID })
}

func (a *API) getDrain(w http.ResponseWriter, r *http.Request) {
	v, err := a.deps.Control.Drain(r.Context(), fleet.DrainID(r.PathValue("id")))
	answerDrain(w, http.StatusOK, v, err)
}

func (a *API) cancelDrain(w http.ResponseWriter, r *http.Request) {
	v, err := a.deps.Control.CancelDrain(r.Context(), fleet.DrainID(r.PathValue("id")))
	answerDrain(w, http.StatusOK, v, err)
}
