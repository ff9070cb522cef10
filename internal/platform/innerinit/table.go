package innerinit

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// process is one process that the platform asked for.
type process struct {
	id   string
	pid  int // also its group and session
	keep bool
	// leave: what is left in its group when it ends stays.
	leave bool
	done  chan struct{} // closed once status is set
	// status is written before done is closed, and read after.
	status unix.WaitStatus
}

// exit may be called once done is closed.
func (p *process) exit() innerapi.Exit {
	if p.status.Signaled() {
		return innerapi.Exit{Code: 128 + int(p.status.Signal()), Signal: int(p.status.Signal())}
	}
	return innerapi.Exit{Code: p.status.ExitStatus()}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// table knows all processes that were asked for.
type table struct {
	// mu is held over fork and over wait, neither of which blocks: a child is in byPID before its
	// exit can be collected, and a pid isn't given out again while a signal is on its way to it.
	mu    sync.Mutex
	byID  map[string]*process
	byPID map[int]*process
}

func newTable() *table {
	return &table{byID: map[string]*process{}, byPID: map[int]*process{}}
}

// reapOne collects one ended child and reports whether there was one.
func (t *table) reapOne() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if err != nil || pid <= 0 {
		return false
	}
	p := t.byPID[pid]
	if p == nil || !(status.Exited() || status.Signaled()) {
		return true
	}
	delete(t.byPID, pid)
	// Kill the rest of its group: processes that a service or check leaves would keep its port, or
	// pile up. A process that has started its own session stays.
	if !p.leave {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	p.status = status
	close(p.done)
	if !p.keep {
		delete(t.byID, p.id)
	}
	return true
}

// signal sends to the process's group, if the process is still there.
func (t *table) signal(p *process, sig unix.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byPID[p.pid] == p {
		_ = unix.Kill(-p.pid, sig)
	}
}

func (t *table) list() []innerapi.Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]innerapi.Info, 0, len(t.byID))
	for _, p := range t.byID {
		info := innerapi.Info{ID: p.id, PID: p.pid}
		if p.ended() {
			exit := p.exit()
			info.Exit = &exit
		}
		all = append(all, info)
	}
	return all
}

func (t *table) find(id string) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byID[id]; p != nil {
		return p, nil
	}
	return nil, errs.New(errs.NotFound, "no process %q", id)
}

func (t *table) forget(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.byID[id]
	if p != nil && !p.ended() {
		return errs.New(errs.Conflict, "process %q is still running", id)
	}
	delete(t.byID, id)
	return nil
}
