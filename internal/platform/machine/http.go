package machine

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// serve answers on l until ctx ends.
func (p *Platform) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: p.authorized(p.handler()), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return g.Wait()
}

// authorized passes on requests with the VM's control token.
func (p *Platform) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !jsonhttp.SameToken(jsonhttp.Bearer(r), p.cfg.Boot.ControlToken) {
			writeError(w, errs.New(errs.Denied, "no valid control token"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *Platform) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+guestapi.PathHealth, p.getHealth)
	mux.HandleFunc("GET "+guestapi.PathAlive, p.getAlive)
	mux.HandleFunc("POST "+guestapi.PathPrepare, p.postPrepare)
	mux.HandleFunc("POST "+guestapi.PathBind, p.postBind)
	mux.HandleFunc("POST "+guestapi.PathReleaseMachine, p.postRelease)
	mux.HandleFunc("GET "+guestapi.PathEvents, p.getEvents)
	inside := http.NewServeMux()
	p.addMachineRoutes(inside)
	mux.Handle(guestapi.PathMachine, p.takenOver(inside))
	inside.HandleFunc("/", unknownPath)
	mux.HandleFunc("/", unknownPath)
	return mux
}

func unknownPath(w http.ResponseWriter, r *http.Request) {
	writeError(w, errs.New(errs.NotFound, "nothing at %s %s in this release of the platform",
		r.Method, r.URL.Path))
}

const takeOverTime = 5 * time.Second

// takenOver delays a request for a running machine until this platformd has taken it over from an
// earlier one.
func (p *Platform) takenOver(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, _ := p.status.get()
		if st := now.Health.State; st == guestapi.StateRunning || st == guestapi.StateHealthy {
			timer := time.NewTimer(takeOverTime)
			defer timer.Stop()
			select {
			case <-p.services.running:
			case <-r.Context().Done():
			case <-timer.C:
			}
		}
		next.ServeHTTP(w, r)
	})
}

// getHealth answers with the state, and the disk's present counters.
func (p *Platform) getHealth(w http.ResponseWriter, r *http.Request) {
	now, _ := p.status.get()
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if info, err := p.block.Info(ctx); err == nil && info.Attached {
		setDisk(&now, info.Report)
		now.Health.Flushes = info.Flushes
	}
	jsonhttp.Write(w, http.StatusOK, told(now.Health))
}

// getAlive answers if this process works at all. It waits for nothing but the locks that everything
// else needs too.
func (p *Platform) getAlive(w http.ResponseWriter, _ *http.Request) {
	p.status.touch()
	w.WriteHeader(http.StatusNoContent)
}

func (p *Platform) postPrepare(w http.ResponseWriter, r *http.Request) {
	var req guestapi.Prepare
	if err := jsonhttp.Decode(w, r, maxRequestBytes, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	var refused error
	err := p.status.update(func(s *saved) {
		switch {
		case s.Prepare != nil && s.Prepare.Machine != req.Machine:
			refused = errs.New(errs.Conflict, "this VM is prepared for machine %s",
				s.Prepare.Machine)
		case s.Bind != nil && s.Bind.Machine != req.Machine, s.ReleaseAsked:
			refused = errs.New(errs.Conflict, "this VM is not empty")
		case s.Prepare == nil && s.Bind == nil:
			s.Prepare = &req
		}
	})
	p.accepted(w, refused, err)
}

func (p *Platform) postBind(w http.ResponseWriter, r *http.Request) {
	var req guestapi.Bind
	if err := jsonhttp.Decode(w, r, maxRequestBytes, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	if err := checkBind(req); err != nil {
		writeError(w, err)
		return
	}
	var refused error
	err := p.status.update(func(s *saved) {
		switch {
		case s.Bind != nil && s.Bind.Machine == req.Machine &&
			s.Bind.Generation == req.Generation && s.Bind.Instance == req.Instance:
			// A repeated request: the answer tells the progress.
		case s.Bind != nil:
			refused = errs.New(errs.Conflict, "this VM is machine %s at generation %d",
				s.Bind.Machine, s.Bind.Generation)
		case s.ReleaseAsked || s.Health.State.Final():
			refused = errs.New(errs.Conflict, "this VM is used up").WithRemedy("use a fresh VM")
		case s.Prepare != nil && s.Prepare.Machine != req.Machine:
			refused = errs.New(errs.Conflict, "this VM is prepared for machine %s",
				s.Prepare.Machine)
		default:
			describe(s, req)
			reach(s, guestapi.StateAttaching)
		}
	})
	p.accepted(w, refused, err)
}

func checkBind(b guestapi.Bind) error {
	switch {
	case b.Machine == "" || b.Generation == 0:
		return errs.New(errs.Invalid, "a bind needs a machine and a generation")
	case b.Store.DiskPath == "":
		return errs.New(errs.Invalid, "a bind needs a disk path")
	}
	if err := fleet.CheckName("machine", string(b.Name)); err != nil {
		return err
	}
	return b.Config.ValidateServices()
}

// accepted answers with the state once a request is on file.
func (p *Platform) accepted(w http.ResponseWriter, refused, err error) {
	if refused == nil {
		refused = err
	}
	if refused != nil {
		writeError(w, refused)
		return
	}
	now, _ := p.status.get()
	jsonhttp.Write(w, http.StatusOK, told(now.Health))
}

func (p *Platform) postRelease(w http.ResponseWriter, r *http.Request) {
	var req guestapi.ReleaseMachine
	if err := jsonhttp.Decode(w, r, maxRequestBytes, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	var refused error
	err := p.status.update(func(s *saved) {
		if s.Bind != nil && (s.Bind.Machine != req.Machine || s.Bind.Generation != req.Generation) {
			refused = errs.New(errs.Conflict, "this VM is machine %s at generation %d",
				s.Bind.Machine, s.Bind.Generation)
			return
		}
		s.ReleaseAsked = true
	})
	if refused == nil {
		refused = err
	}
	if refused != nil {
		writeError(w, refused)
		return
	}
	p.interrupt.now()
	p.answerReleased(w, r)
}

// answerReleased waits for the end and tells it.
func (p *Platform) answerReleased(w http.ResponseWriter, r *http.Request) {
	for {
		now, changed := p.status.get()
		if now.Health.State.Final() {
			if now.Health.State == guestapi.StateReleased {
				jsonhttp.Write(w, http.StatusOK, told(now.Health))
				return
			}
			writeError(w, errs.New(errs.Kind(now.Health.ErrorKind), "%s", now.Health.Error).
				WithRemedy("%s", now.Health.Remedy))
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// getEvents streams the state, at once and after each change. A slow reader misses intermediate
// states.
func (p *Platform) getEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	for {
		now, changed := p.status.get()
		if lines.Encode(told(now.Health)) != nil || out.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

const maxRequestBytes = 4 << 20

// writeError marks the answer as the platform's own, not a program's of the machine.
func writeError(w http.ResponseWriter, err error) {
	w.Header().Set(guestapi.HeaderError, "1")
	jsonhttp.Fail(w, err)
}
