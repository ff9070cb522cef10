package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// machineCalls are the calls about machines, and about moves of one.
type machineCalls struct {
	machines fleet.Machines
	moves    fleet.Moves
	waits    waits
}

// machineRef is how the control plane is asked for a machine: "app~name" in a path is "app/name" to
// it.
func machineRef(r *http.Request) string { return strings.Replace(r.PathValue("ref"), "~", "/", 1) }

// machineOf returns the id of the machine that a call is about, which was found when the call was
// authorized. A name could be another machine's by now.
func machineOf(r *http.Request) string { return string(callOf(r).machine.ID) }

// answerMachine encodes what a call for one machine came to.
func answerMachine(w http.ResponseWriter, status int, v fleet.MachineView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, status, machineToAPI(v))
}

func (c machineCalls) createMachine(w http.ResponseWriter, r *http.Request) {
	var body api.CreateMachine
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	req, err := createFromAPI(body)
	if err != nil {
		writeError(w, err)
		return
	}
	scope := authz.Scope{Network: body.Network, App: body.App}
	if err := mayDo(r, authz.Operate, scope); err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("network", body.Network)
	callOf(r).acted("app", body.App)
	v, err := c.machines.CreateMachine(r.Context(), req)
	callOf(r).acted("machine", string(v.Machine.ID))
	answerMachine(w, http.StatusCreated, v, err)
}

// listMachines filters by the exact values of app, network, worker and state.
func (c machineCalls) listMachines(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	views, err := c.machines.Machines(r.Context(), fleet.MachineFilter{
		Networks: networksOf(r, q.Get("network")), App: fleet.AppName(q.Get("app")),
		Worker: fleet.WorkerID(q.Get("worker"))})
	if err != nil {
		writeError(w, err)
		return
	}
	matches := func(m api.Machine) bool {
		for key, have := range map[string]string{"app": m.App, "network": m.Network,
			"worker": m.Worker, "state": m.State} {
			if want := q.Get(key); want != "" && want != have {
				return false
			}
		}
		return true
	}
	machines := make([]api.Machine, 0, len(views))
	for _, v := range views {
		if !sees(r, scopeOf(v.Machine)) {
			continue
		}
		if m := machineToAPI(v); matches(m) {
			machines = append(machines, m)
		}
	}
	answerPage(w, r, machines, func(m api.Machine) string { return m.ID })
}

// networksOf returns the networks in which what a caller asks for may be; none if it may be in any.
func networksOf(r *http.Request, asked string) []fleet.NetworkName {
	if asked != "" {
		return []fleet.NetworkName{fleet.NetworkName(asked)}
	}
	var networks []fleet.NetworkName
	for _, g := range callOf(r).subject.Grants {
		if g.Network == "" {
			return nil
		}
		networks = append(networks, fleet.NetworkName(g.Network))
	}
	slices.Sort(networks)
	return slices.Compact(networks)
}

func answerPage[T any](w http.ResponseWriter, r *http.Request, items []T, key func(T) string) {
	list, err := page(r, items, key)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, list)
}

// getMachine answers with the machine and its history. With ?wait=started|stopped|settled it
// answers once that is so, or has become impossible, or the long poll is over.
func (c machineCalls) getMachine(w http.ResponseWriter, r *http.Request) {
	ref := machineOf(r)
	read := func() (fleet.MachineView, error) { return c.machines.Machine(r.Context(), ref) }
	done, err := machineCondition(r.URL.Query().Get("wait"))
	if err != nil {
		writeError(w, err)
		return
	}
	v, err := longPoll(c.waits, r, read, done)
	if err != nil {
		writeError(w, err)
		return
	}
	events, err := c.machines.MachineEvents(r.Context(), string(v.Machine.ID))
	if err != nil {
		writeError(w, err)
		return
	}
	out := machineToAPI(v)
	out.Events = eventsToAPI(events)
	jsonhttp.Write(w, http.StatusOK, out)
}

// destroyMachine returns once the request is recorded; the machine's VM and disk go after that.
func (c machineCalls) destroyMachine(w http.ResponseWriter, r *http.Request) {
	if err := c.machines.DestroyMachine(r.Context(), machineOf(r)); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c machineCalls) startMachine(w http.ResponseWriter, r *http.Request) {
	v, err := c.machines.StartMachine(r.Context(), machineOf(r))
	answerMachine(w, http.StatusOK, v, err)
}

func (c machineCalls) stopMachine(w http.ResponseWriter, r *http.Request) {
	v, err := c.machines.StopMachine(r.Context(), machineOf(r))
	answerMachine(w, http.StatusOK, v, err)
}

func (c machineCalls) migrateMachine(w http.ResponseWriter, r *http.Request) {
	var body api.Migrate
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	if body.To != "" {
		if err := fleet.CheckName("worker", body.To); err != nil {
			writeError(w, err)
			return
		}
	}
	callOf(r).acted("worker", body.To)
	v, err := c.moves.Migrate(r.Context(), machineOf(r), fleet.WorkerID(body.To))
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusAccepted, moveToAPI(v))
}

func (c machineCalls) machineEvents(w http.ResponseWriter, r *http.Request) {
	events, err := c.machines.MachineEvents(r.Context(), machineOf(r))
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, api.List[api.Event]{Items: eventsToAPI(events)})
}

// getMove answers with one move; with ?wait=done once it has ended, or the long poll is over.
func (c machineCalls) getMove(w http.ResponseWriter, r *http.Request) {
	id := fleet.MoveID(r.PathValue("id"))
	read := func() (fleet.MoveView, error) { return c.moves.Move(r.Context(), id) }
	done, err := moveCondition(r.URL.Query().Get("wait"))
	if err != nil {
		writeError(w, err)
		return
	}
	v, err := longPoll(c.waits, r, read, done)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, moveToAPI(v))
}
