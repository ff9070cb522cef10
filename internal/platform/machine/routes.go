package machine

import (
	"net/http"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// machineRoutes are what the fleet's API passes on, below /v1/machines/{id}/.
func (p *Platform) machineRoutes(mux *http.ServeMux) {
	at := func(method, path string) string { return method + " " + guestapi.PathMachine + path }
	mux.HandleFunc(at("GET", "exec"), p.getExec)
	mux.HandleFunc(at("GET", "logs"), p.getLogs)
	mux.HandleFunc(at("GET", "services"), p.getServices)
	mux.HandleFunc(at("POST", "services/{name}/{action}"), p.postService)
	mux.HandleFunc(guestapi.PathMachine+"ports/{port}", p.anyPorts)
	mux.HandleFunc(guestapi.PathMachine+"ports/{port}/{path...}", p.anyPorts)
	mux.HandleFunc(at("GET", "disk"), p.getDisk)
	mux.HandleFunc(at("GET", "checkpoints"), p.getCheckpoints)
	mux.HandleFunc(at("POST", "checkpoints/{name}"), p.postCheckpoint)
}

func (p *Platform) getServices(w http.ResponseWriter, _ *http.Request) {
	now, _ := p.status.get()
	if now.Bind == nil {
		writeError(w, errs.New(errs.Unavailable, "this VM is no machine yet"))
		return
	}
	writeJSON(w, list[fleet.ServiceReport]{Items: now.Health.Services})
}

// postService starts, stops or restarts a service, and answers with all of them as they are right then.
func (p *Platform) postService(w http.ResponseWriter, r *http.Request) {
	m, err := p.services.get()
	if err == nil {
		name := r.PathValue("name")
		switch r.PathValue("action") {
		case "start":
			err = m.Start(name)
		case "stop":
			err = m.Stop(name)
		case "restart":
			err = m.Restart(name)
		default:
			err = errs.New(errs.NotFound, "services can be started, stopped and restarted; not %q", r.PathValue("action"))
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, list[fleet.ServiceReport]{Items: m.Reports()})
}

// list is the form of every list that the fleet's API passes on.
type list[T any] struct {
	Items []T `json:"items"`
}

// diskAnswer describes the attached disk: what its head says, and what it asked of the store.
type diskAnswer struct {
	URL string `json:"url"` // relative to the pool: the rest isn't known in a VM
	blockapi.Description
	SizeBytes   int64                 `json:"size_bytes"`
	Device      string                `json:"device"`
	Activity    fleet.DiskReport      `json:"activity"`
	Stall       *fleet.DiskStall      `json:"stall,omitempty"` // then no checkpoints are told
	Checkpoints []blockapi.Checkpoint `json:"checkpoints,omitempty"`
}

func (p *Platform) getDisk(w http.ResponseWriter, r *http.Request) {
	info, err := p.block.Info(r.Context())
	if err == nil && !info.Attached {
		err = errs.New(errs.Unavailable, "no disk is attached")
	}
	if err != nil {
		writeError(w, err)
		return
	}
	var all []blockapi.Checkpoint
	if info.Stall == nil { // they are in the store
		if all, err = p.block.Checkpoints(r.Context()); err != nil {
			writeError(w, err)
			return
		}
	}
	now, _ := p.status.get()
	if info.Stall != nil && now.Health.Stall != nil {
		info.Stall.Paused = now.Health.Stall.Paused
	}
	writeJSON(w, diskAnswer{URL: info.Path, Description: info.Description, SizeBytes: info.SizeBytes, Device: info.Device,
		Activity: info.Report, Stall: info.Stall, Checkpoints: all})
}

func (p *Platform) getCheckpoints(w http.ResponseWriter, r *http.Request) {
	all, err := p.block.Checkpoints(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, list[blockapi.Checkpoint]{Items: all})
}

// postCheckpoint writes out the file system and names that state. What a program has not yet written to its files
// is not in it, as after a power cut.
func (p *Platform) postCheckpoint(w http.ResponseWriter, r *http.Request) {
	if _, _, err := p.live(); err != nil {
		writeError(w, err)
		return
	}
	name := r.PathValue("name")
	if err := syncDir(p.diskDir()); err != nil {
		writeError(w, errs.Wrap(errs.Unavailable, err, "write out the file system"))
		return
	}
	if err := p.block.Checkpoint(r.Context(), name); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, blockapi.Checkpoint{Name: name})
}
