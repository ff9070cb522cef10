package httpapi

import (
	"net/http"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// workerCalls are the calls about workers.
type workerCalls struct{ workers fleet.Workers }

func answerWorker(w http.ResponseWriter, v fleet.WorkerView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, workerToAPI(v))
}

func (c workerCalls) listWorkers(w http.ResponseWriter, r *http.Request) {
	views, err := c.workers.Workers(r.Context())
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

func (c workerCalls) getWorker(w http.ResponseWriter, r *http.Request) {
	v, err := c.workers.Worker(r.Context(), fleet.WorkerID(r.PathValue("id")))
	answerWorker(w, v, err)
}

func (c workerCalls) cordonWorker(w http.ResponseWriter, r *http.Request) {
	var body api.Cordon
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	v, err := c.workers.Cordon(r.Context(), fleet.WorkerID(r.PathValue("id")), body.Reason)
	answerWorker(w, v, err)
}

func (c workerCalls) uncordonWorker(w http.ResponseWriter, r *http.Request) {
	v, err := c.workers.Uncordon(r.Context(), fleet.WorkerID(r.PathValue("id")))
	answerWorker(w, v, err)
}
