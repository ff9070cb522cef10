package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/blob/gatewayblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// guestState is the platform's part of a fakeVM: what the real one does, without processes.
type guestState struct {
	server  *http.Server
	running sync.WaitGroup
	bind    *guestapi.Bind
	store   *gatewayblob.Store
	disk    *disk.Disk
	binds   int // accepted, first ones
}

func (v *fakeVM) generation() fleet.Generation {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bind == nil {
		return 0
	}
	return v.bind.Generation
}

func (v *fakeVM) theDisk() *disk.Disk {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.disk
}

func (v *fakeVM) serve() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+guestapi.PathHealth,
		func(w http.ResponseWriter, _ *http.Request) { v.answer(w) })
	mux.HandleFunc("POST "+guestapi.PathPrepare, v.postPrepare)
	mux.HandleFunc("POST "+guestapi.PathBind, v.postBind)
	mux.HandleFunc("POST "+guestapi.PathReleaseMachine, v.postRelease)
	mux.HandleFunc("GET "+guestapi.PathEvents, v.getEvents)
	mux.HandleFunc(guestapi.PathMachine+"echo/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery)
	})
	mux.HandleFunc(guestapi.PathMachine+"exec", v.exec)
	v.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.host.mu.Lock()
		fault := v.host.fault
		v.host.mu.Unlock()
		if fault != nil {
			fault(v, r)
		}
		if r.Header.Get("Authorization") != "Bearer "+v.boot.ControlToken {
			v.refuse(w, errs.New(errs.Denied, "no valid control token"))
			return
		}
		mux.ServeHTTP(w, r)
	})}
	v.running.Add(1)
	go func() {
		defer v.running.Done()
		_ = v.server.Serve(v.listener)
	}()
}

func (v *fakeVM) exec(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	kind, data, err := c.Read(r.Context())
	if err == nil {
		_ = c.Write(r.Context(), kind, append([]byte("you said "), data...))
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

// set changes the health; what has ended stays.
func (v *fakeVM) set(s guestapi.State, cause error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch v.health.State {
	case guestapi.StateReleased, guestapi.StateFailed, guestapi.StateFenced:
		return
	}
	now := time.Now()
	v.health.State, v.health.Since = s, now
	v.health.Timeline = maps.Clone(v.health.Timeline)
	v.health.Timeline[s] = now
	if cause != nil {
		v.health.ErrorKind, v.health.Error = string(errs.KindOf(cause)), cause.Error()
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *fakeVM) get() (guestapi.Health, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.health, v.changed
}

func (v *fakeVM) answer(w http.ResponseWriter) {
	h, _ := v.get()
	if d := v.theDisk(); d != nil {
		s := d.Stats()
		h.Flushes = &fleet.DiskFlushes{DirtyBytes: s.DirtyBytes,
			Waits: map[string]fleet.Durations{},
			Times: fleet.NewDurations(s.FlushTime, s.FlushTimes[:])}
		for name, x := range s.FlushWaits {
			h.Flushes.Waits[string(name)] = fleet.NewDurations(x.Sum, x.Times[:])
		}
	}
	_ = json.NewEncoder(w).Encode(h)
}

func (v *fakeVM) refuse(w http.ResponseWriter, err error) {
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(errs.ToWire(err))
}

func (v *fakeVM) open(a guestapi.StoreAccess) *gatewayblob.Store {
	v.host.mu.Lock()
	address := v.host.gateways[v.HostLink()]
	v.host.mu.Unlock()
	s, err := gatewayblob.New(gatewayblob.Config{BaseURL: "http://" + address, Token: a.Token,
		Timeout: 2 * time.Second})
	if err != nil {
		panic(err) // of the test itself
	}
	return s
}

func (v *fakeVM) postPrepare(w http.ResponseWriter, r *http.Request) {
	var p guestapi.Prepare
	_ = json.NewDecoder(r.Body).Decode(&p)
	if h, _ := v.get(); h.State != guestapi.StateEmpty && h.State != guestapi.StatePrepared {
		v.refuse(w, errs.New(errs.Conflict, "this VM is not empty"))
		return
	}
	v.work(func(ctx context.Context) {
		store := v.open(p.Store)
		defer store.Close()
		opts := disk.PrepareOptions{Key: keyOf(p.Store)}
		if _, err := disk.Prepare(ctx, store, p.Store.DiskPath, opts); err != nil {
			v.host.t.Logf("fake guest: prepare: %v", err)
		}
		if h, _ := v.get(); h.State == guestapi.StateEmpty {
			v.set(guestapi.StatePrepared, nil)
		}
	})
	v.answer(w)
}

func (v *fakeVM) work(f func(ctx context.Context)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return
	}
	v.running.Add(1)
	go func() {
		defer v.running.Done()
		f(v.ctx)
	}()
}

func (v *fakeVM) postBind(w http.ResponseWriter, r *http.Request) {
	var b guestapi.Bind
	_ = json.NewDecoder(r.Body).Decode(&b)
	v.mu.Lock()
	first := v.bind == nil
	same := !first && v.bind.Machine == b.Machine && v.bind.Generation == b.Generation &&
		v.bind.Instance == b.Instance
	if first {
		v.bind = &b
		v.binds++
		v.health.Machine, v.health.Generation, v.health.Instance = b.Machine,
			b.Generation, b.Instance
	}
	v.mu.Unlock()
	switch {
	case first:
		v.set(guestapi.StateAttaching, nil)
		v.work(func(ctx context.Context) { v.bringUp(ctx, b) })
	case !same:
		v.refuse(w, errs.New(errs.Conflict, "this VM is another machine"))
		return
	}
	v.answer(w)
}

// keyOf returns what opens the disk; nil if no key came along.
func keyOf(a guestapi.StoreAccess) disk.KEK {
	ring, err := kek.NewRing(a.Keys...)
	if err != nil {
		return nil
	}
	return ring
}

func (v *fakeVM) bringUp(ctx context.Context, b guestapi.Bind) {
	store := v.open(b.Store)
	d, err := disk.Attach(ctx, store, b.Store.DiskPath, disk.AttachOptions{
		Generation: uint64(b.Generation), Holder: string(v.id), Key: keyOf(b.Store),
		Tuning: disk.Tuning{Revalidate: 20 * time.Millisecond, StallTimeout: 5 * time.Second},
	})
	if err != nil {
		store.Close()
		v.fail(err)
		return
	}
	v.mu.Lock()
	v.disk, v.store = d, store
	ended := v.ended
	v.mu.Unlock()
	if ended {
		d.Abandon()
		return
	}
	v.work(func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-d.Stopped():
			if errs.Is(d.Err(), errs.Fenced) {
				v.fail(d.Err())
			}
		}
		store.Close()
	})
	v.set(guestapi.StateStarting, nil)
	v.set(guestapi.StateRunning, nil)
	v.set(guestapi.StateHealthy, nil)
}

func (v *fakeVM) fail(err error) {
	s := guestapi.StateFailed
	if errs.Is(err, errs.Fenced) {
		s = guestapi.StateFenced
	}
	v.set(s, err)
}

func (v *fakeVM) postRelease(w http.ResponseWriter, r *http.Request) {
	v.set(guestapi.StateStopping, nil)
	for {
		h, changed := v.get()
		switch h.State {
		case guestapi.StateReleased:
			v.answer(w)
			return
		case guestapi.StateFailed, guestapi.StateFenced:
			v.refuse(w, errs.New(errs.Kind(h.ErrorKind), "%s", h.Error))
			return
		}
		if d := v.theDisk(); d != nil {
			if err := d.Close(v.ctx); err == nil {
				v.set(guestapi.StateReleased, nil)
				continue
			} else if errs.Is(err, errs.Fenced) {
				v.fail(err)
				continue
			}
		} else if v.generation() == 0 {
			v.set(guestapi.StateReleased, nil)
			continue
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		case <-r.Context().Done():
			return
		case <-v.ctx.Done():
			return
		}
	}
}

func (v *fakeVM) getEvents(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	for {
		h, changed := v.get()
		if json.NewEncoder(w).Encode(h) != nil || out.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-v.ctx.Done():
			return
		}
	}
}
