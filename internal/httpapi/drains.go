package httpapi

import (
	"net/http"
	"slices"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// drainCalls are the calls about drains.
type drainCalls struct {
	drains fleet.Drains
	waits  waits
}

func answerDrain(w http.ResponseWriter, status int, v fleet.DrainView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, status, drainToAPI(v))
}

func (c drainCalls) createDrain(w http.ResponseWriter, r *http.Request) {
	var body api.CreateDrain
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	workers, err := drainWorkers(body.Workers)
	if err != nil {
		writeError(w, err)
		return
	}
	for _, id := range workers {
		callOf(r).acted("worker", string(id))
	}
	v, err := c.drains.StartDrain(r.Context(), workers, callOf(r).subject.Name)
	callOf(r).acted("drain", string(v.Drain.ID))
	answerDrain(w, http.StatusCreated, v, err)
}

func drainWorkers(names []string) ([]fleet.WorkerID, error) {
	if len(names) == 0 {
		return nil, errs.New(errs.Invalid, "a drain needs at least one worker").
			WithRemedy("name it in workers")
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

func (c drainCalls) listDrains(w http.ResponseWriter, r *http.Request) {
	views, err := c.drains.Drains(r.Context())
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

func (c drainCalls) getDrain(w http.ResponseWriter, r *http.Request) {
	v, err := c.drains.Drain(r.Context(), fleet.DrainID(r.PathValue("id")))
	answerDrain(w, http.StatusOK, v, err)
}

func (c drainCalls) cancelDrain(w http.ResponseWriter, r *http.Request) {
	v, err := c.drains.CancelDrain(r.Context(), fleet.DrainID(r.PathValue("id")))
	answerDrain(w, http.StatusOK, v, err)
}
