package machine

import (
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// route is a call that the fleet's API passes on, below /v1/machines/{id}/. api/openapi.yaml has
// each of them.
type route struct {
	method string // "": all
	path   string
	handle http.HandlerFunc
}

func (p *Platform) machineRoutes() []route {
	return []route{
		{"GET", "exec", p.getExec},
		{"GET", "logs", p.getLogs},
		{"GET", "services", p.getServices},
		{"POST", "services/{name}/{action}", p.postService},
		{"", "ports/{port}", p.anyPorts},
		{"", "ports/{port}/{path...}", p.anyPorts},
		{"GET", "disk", p.getDisk},
		{"GET", "disk/stats", p.getDiskStats},
		{"GET", "checkpoints", p.getCheckpoints},
		{"POST", "checkpoints/{name}", p.postCheckpoint},
	}
}

// addMachineRoutes adds the routes to mux.
func (p *Platform) addMachineRoutes(mux *http.ServeMux) {
	for _, r := range p.machineRoutes() {
		mux.HandleFunc(strings.TrimSpace(r.method+" "+guestapi.PathMachine+r.path), r.handle)
	}
}

func (p *Platform) getServices(w http.ResponseWriter, _ *http.Request) {
	now, _ := p.status.get()
	if now.Bind == nil {
		writeError(w, errs.New(errs.Unavailable, "this VM is no machine yet"))
		return
	}
	jsonhttp.Write(w, http.StatusOK, servicesToAPI(now.Health.Services))
}

// postService starts, stops or restarts a service, and answers with the state of all services.
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
			err = errs.New(errs.NotFound, "services can be started, stopped and restarted; not %q",
				r.PathValue("action"))
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, servicesToAPI(m.Reports()))
}

func servicesToAPI(reports []fleet.ServiceReport) api.List[api.ServiceInfo] {
	out := api.List[api.ServiceInfo]{Items: []api.ServiceInfo{}}
	for _, r := range reports {
		out.Items = append(out.Items, api.ServiceInfo(r))
	}
	return out
}

// diskToAPI returns the description of the attached disk. Its URL is relative to the pool, because
// a VM doesn't know the pool's URL.
func diskToAPI(info blockapi.Info) api.DiskInfo {
	d, activity := info.Description, api.DiskActivity(info.Report)
	return api.DiskInfo{
		URL: info.Path, ID: d.ID, SizeBytes: info.SizeBytes, State: d.State, Mode: d.Mode,
		Epoch:      d.Epoch,
		Generation: d.Generation, Holder: d.Holder, UpdatedAt: d.UpdatedAt, Device: info.Device,
		FrontEnd: d.FrontEnd, Activity: &activity, Stall: (*api.DiskStall)(info.Stall),
	}
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
	var all []api.DiskCheckpoint
	if info.Stall == nil { // they are in the store
		if all, err = p.block.Disk().Checkpoints(r.Context()); err != nil {
			writeError(w, err)
			return
		}
	}
	now, _ := p.status.get()
	if info.Stall != nil && now.Health.Stall != nil {
		info.Stall.Paused = now.Health.Stall.Paused
	}
	info.Report.Ungrown = now.Health.Disk.Ungrown
	answer := diskToAPI(info)
	answer.Checkpoints = all
	jsonhttp.Write(w, http.StatusOK, answer)
}

func (p *Platform) getDiskStats(w http.ResponseWriter, r *http.Request) {
	s, err := p.block.Disk().Stats(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	now, _ := p.status.get()
	jsonhttp.Write(w, http.StatusOK, statsToAPI(s, now.Health.Stall))
}

// statsToAPI returns a disk's counts as API type. The stall is the platform's, which
// knows whether the machine is paused.
func statsToAPI(s disk.Stats, stall *fleet.DiskStall) api.DiskStats {
	waits := map[string]api.DiskWait{}
	for name, w := range s.FlushWaits {
		waits[string(name)] = api.DiskWait{SumNS: w.Sum.Nanoseconds(), Times: w.Times[:]}
	}
	return api.DiskStats{
		Reads: s.Reads, Writes: s.Writes, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
		Flushes: s.Flushes,
		Gets:    s.Gets, Puts: s.Puts, HeadSwaps: s.HeadSwaps, Retries: s.Retries,
		Throttled:   s.Throttled,
		LostObjects: s.Lost, FrameHits: s.FrameHits, FrameMisses: s.FrameMisses,
		DirtyBytes: s.DirtyBytes,
		FlushTimes: s.FlushTimes[:], FlushTimeNS: s.FlushTime.Nanoseconds(), FlushWaits: waits,
		Stall: (*api.DiskStall)(stall),
	}
}

func (p *Platform) getCheckpoints(w http.ResponseWriter, r *http.Request) {
	all, err := p.block.Disk().Checkpoints(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, api.List[api.DiskCheckpoint]{Items: all})
}

// postCheckpoint writes out the file system and names that state. As after a power cut, data that a
// program hasn't written to its files yet is missing from it.
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
	if _, err := p.block.Disk().Checkpoint(r.Context(), name); err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, api.DiskCheckpoint{Name: name})
}
