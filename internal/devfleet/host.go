package devfleet

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
)

// The following functions do what can happen to a host. Each takes the fleet's lock, and is
// idempotent.

// Kill ends a worker as a power cut would: its daemon, all its VMs, and its network, at once.
func (f *Fleet) Kill(ctx context.Context, worker string) error {
	return f.withHost(worker, func(_ *State, h *Host) error {
		if err := f.setPort(worker, false); err != nil {
			f.log.DebugContext(ctx, "worker has no link", "worker_id", worker, "error", err)
		}
		if err := h.Process.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		if err := killCgroups(f.CgroupParent(worker)); err != nil {
			return err
		}
		if err := h.Process.kill(ctx); err != nil {
			return err
		}
		return f.removeHost(worker)
	})
}

// KillDaemon kills a worker's daemon; its VMs keep running.
func (f *Fleet) KillDaemon(ctx context.Context, worker string) error {
	return f.withHost(worker, func(_ *State, h *Host) error { return h.Process.kill(ctx) })
}

// Cut disconnects a worker from the bridge. It still reaches a store that is a directory.
func (f *Fleet) Cut(worker string) error {
	return f.withHost(worker, func(*State, *Host) error { return f.setPort(worker, false) })
}

// Heal connects a worker to the bridge again.
func (f *Fleet) Heal(worker string) error {
	return f.withHost(worker, func(*State, *Host) error { return f.setPort(worker, true) })
}

// Pause stops a worker's daemon with SIGSTOP; Resume continues it.
func (f *Fleet) Pause(worker string) error {
	return f.withHost(worker, func(_ *State,
		h *Host) error {
		return h.Process.Signal(syscall.SIGSTOP)
	})
}

// Resume continues a paused worker's daemon.
func (f *Fleet) Resume(worker string) error {
	return f.withHost(worker, func(_ *State,
		h *Host) error {
		return h.Process.Signal(syscall.SIGCONT)
	})
}

// Start starts a worker's daemon again, and makes its host anew if that is gone.
func (f *Fleet) Start(ctx context.Context, worker string) error {
	return f.withHost(worker, func(s *State, h *Host) error {
		if err := f.launchWorker(ctx, s, h); err != nil {
			return err
		}
		return f.waitReady(ctx, "worker "+worker, h.Process,
			filepath.Join(f.workerDir(worker), "ready.json"), nil)
	})
}

// KillServer kills the server. Machines keep running.
func (f *Fleet) KillServer(ctx context.Context) error {
	return f.withState(func(s *State) error { return s.Server.kill(ctx) })
}

// StartServer starts the server again, at the same address.
func (f *Fleet) StartServer(ctx context.Context) error {
	return f.withState(func(s *State) error { return f.ensureServer(ctx, s) })
}

// State returns what is known of the fleet.
func (f *Fleet) State() (State, error) {
	s, err := f.load()
	if err != nil {
		return State{}, err
	}
	return *s, nil
}

func (f *Fleet) withState(fn func(*State) error) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := f.load()
	if err != nil {
		return err
	}
	return fn(s)
}

func (f *Fleet) withHost(worker string, fn func(*State, *Host) error) error {
	return f.withState(func(s *State) error {
		h, err := s.host(worker)
		if err != nil {
			return err
		}
		if err := fn(s, h); err != nil {
			return fmt.Errorf("worker %s: %w", worker, err)
		}
		return nil
	})
}

// InHost runs fn on a thread that is in a worker's network, as if on that host. A connection that
// fn opens stays there.
func (f *Fleet) InHost(worker string, fn func() error) error {
	return inNetns(f.Netns(worker), fn)
}
