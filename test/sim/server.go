package sim

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// movesPerNetwork is what the runs' policy allows, and what the invariant is checked against.
const movesPerNetwork = 1

func policy(opt Options) fleet.Policy {
	p := fleet.DefaultPolicy()
	p.MovesPerNetwork, p.StartTimeout, p.WorkerDown = movesPerNetwork, 20*time.Second, 6*time.Second
	if opt.Break == BugNoLock {
		p.MovesPerNetwork = 1000
	}
	return p
}

// server is one control plane. It dies whole: what it had in memory is gone.
type server struct {
	w      *world
	name   string
	c      *control.Control
	ctx    context.Context
	cancel context.CancelFunc
	dead   bool
	seen   <-chan struct{} // closed by the next change that the workers haven't been told of
	old    bool            // another one has taken over, and this one doesn't know
}

// server returns the server that workers and users reach; nil while there is none.
func (w *world) server() *server {
	if n := len(w.servers); n > 0 && !w.servers[n-1].dead {
		return w.servers[n-1]
	}
	return nil
}

func (w *world) startServer() {
	s := &server{w: w, name: fmt.Sprintf("server%d", len(w.servers)+1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	c, err := control.New(control.Config{FleetID: "sim", StoreURL: "mem://pool",
		Policy: policy(w.opt), Tick: time.Millisecond}, control.Deps{
		Store: &faultyStore{Store: w.store, w: w, s: s}, Disks: w.disks, Images: w.disks, IDs: w,
		Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.violated("new control plane: %v", err)
		return
	}
	s.c = c
	w.servers = append(w.servers, s)
	w.logf("%s starts", s.name)
	if err := c.Refresh(s.ctx); err != nil {
		w.violated("%s can't read the state: %v", s.name, err)
	}
	for _, k := range w.workers {
		k.sent = 0
	}
	s.tick()
}

// die ends a server at once. If it was the newest, another one starts after a while.
func (s *server) die() {
	if s.dead {
		return
	}
	s.dead = true
	s.cancel()
	if !s.old {
		s.w.after(s.w.between(50*time.Millisecond, 4*time.Second), func() {
			if s.w.server() == nil {
				s.w.startServer()
			}
		})
	}
}

// usurp starts another server while this one, which doesn't know, goes on for a while on what it
// last saw.
func (s *server) usurp() {
	s.old = true
	s.w.logf("%s is taken over, and goes on", s.name)
	s.w.after(s.w.between(time.Second, 20*time.Second), s.die)
	s.w.startServer()
}

// tick is the server's clock.
func (s *server) tick() {
	if s.dead {
		return
	}
	if !s.old && s.w.foreign {
		s.w.foreign = false
		if err := s.c.Refresh(s.ctx); err != nil && !s.dead { // its watch: others may have written
			s.w.violated("%s can't read the state: %v", s.name, err)
		}
	}
	s.c.Tick()
	s.converge()
	s.w.after(s.w.between(300*time.Millisecond, 600*time.Millisecond), s.tick)
}

// converge lets the server do all that is to be done, and puts what workers shall do on the wire.
func (s *server) converge() {
	if s.dead {
		return
	}
	s.c.Converge(s.ctx)
	if s.dead || s.old {
		return
	}
	for _, k := range s.w.workers {
		if s.changed() || k.sent == 0 {
			s.push(k)
		}
	}
	s.seen = s.c.Changed()
}

// changed says that something has changed since the workers were last told.
func (s *server) changed() bool {
	select {
	case <-s.seen:
		return true
	default:
		return s.seen == nil
	}
}

func (s *server) push(k *worker) {
	if !k.joined || !k.reachable() {
		return
	}
	set, err := s.c.Assignments(s.ctx, k.id, -1)
	if err != nil || set.Revision == k.sent && k.sentBy == s {
		return
	}
	k.sent, k.sentBy = set.Revision, s
	if s.w.chance(60) {
		return
	}
	boot := k.boots
	s.w.after(s.w.between(time.Millisecond, s.w.delay()), func() {
		if k.boots == boot {
			k.take(set)
		}
	})
}

// delay is the longest that a message takes, now.
func (w *world) delay() time.Duration {
	if w.chance(50) {
		return 3 * time.Second
	}
	return 20 * time.Millisecond
}

func (w *world) close() {
	for _, s := range w.servers {
		s.cancel()
	}
	_ = w.store.Close()
}
