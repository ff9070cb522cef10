package onhost

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	vmIDPattern   = regexp.MustCompile(`^[0-9a-f]{8}$`)
	parentPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
)

// UndoTimeout bounds the removal of what a failed start has made.
const UndoTimeout = 10 * time.Second

// Kind is how the VMs of one driver differ from those of another.
type Kind[V Guest] struct {
	// Wrap makes the driver's VM around what it has on the host.
	Wrap func(*VM) V
	// Devices that a VM may open beside the usual ones, as rules of the v1 devices controller.
	Devices []string
	// Revivable reports whether a record whose process still runs is of a whole VM; nil: it is.
	Revivable func(Record) bool
	// HowItEnded returns how a VM ended, given how its process ended; nil: the same.
	HowItEnded func(v *VM, process string) string
	// RemoveRest removes what a VM has on the host beside its link, cgroups and directory. It may
	// be called again; nil: nothing.
	RemoveRest func(ctx context.Context, v *VM) error
}

// Guest is a driver's VM, which embeds a *VM.
type Guest interface {
	runtime.VM
	onHost() *VM
}

// Config says where a driver's VMs are.
type Config struct {
	// Dir holds one directory per VM. It belongs to one worker: OpenVMs locks it. Made if it isn't
	// there.
	Dir string
	// CgroupParent is the cgroup below which VMs are put, relative to the root of each hierarchy,
	// as in "sluice/w1". Different for every worker of a host.
	CgroupParent string
	Logger       *slog.Logger
}

// VMs starts a driver's VMs and finds those of earlier processes again. Safe for concurrent use.
type VMs[V Guest] struct {
	cfg    Config
	kind   Kind[V]
	layout Layout
	bootID string
	lock   *os.File
	ctx    context.Context // ends when the driver is closed; VMs go on
	cancel context.CancelFunc
	watch  errgroup.Group

	mu  sync.Mutex
	all map[fleet.VMID]entry[V] // those that Start or Adopt returned, and ids that are reserved
}

// entry is a VM, or an id that somebody is at work on.
type entry[V Guest] struct {
	vm    V
	there bool
}

// OpenVMs takes a state directory. Conflict if another process has it.
func OpenVMs[V Guest](cfg Config, kind Kind[V]) (*VMs[V], error) {
	if !parentPattern.MatchString(cfg.CgroupParent) ||
		strings.Contains("/"+cfg.CgroupParent+"/", "/../") {
		return nil, errs.New(errs.Invalid, "cgroup parent %q is not a relative path of plain names",
			cfg.CgroupParent)
	}
	if cfg.Dir == "" {
		return nil, errs.New(errs.Invalid, "the directory of VMs has no name")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "make the directory of VMs")
	}
	// Loop devices are found again by the real path of their file.
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "resolve directory %s", cfg.Dir)
	}
	cfg.Dir = dir
	s := &VMs[V]{cfg: cfg, kind: kind, all: map[fleet.VMID]entry[V]{}}
	if s.layout, err = HostLayout(); err != nil {
		return nil, err
	}
	if s.bootID, err = BootID(); err != nil {
		return nil, err
	}
	if s.lock, err = LockDir(dir); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close stops watching. VMs keep running, and a later Adopt on the same directory finds them.
func (s *VMs[V]) Close() error {
	s.cancel()
	return errors.Join(s.watch.Wait(), s.lock.Close())
}

// Open returns a context that ends with Close.
func (s *VMs[V]) Open() context.Context { return s.ctx }

// BootID tells this boot of the host from others.
func (s *VMs[V]) BootID() string { return s.bootID }

// CheckID refuses ids that no VM can have.
func CheckID(id fleet.VMID) error {
	if !vmIDPattern.MatchString(string(id)) {
		return errs.New(errs.Invalid, "VM id %q is not 8 lower-case hex digits", id)
	}
	return nil
}

// Start makes a VM's directory, and calls launch for the rest, up to Attend. Exists: the id is
// taken. If launch fails, nothing is left behind; otherwise the error says what, and a later Adopt
// returns it.
func (s *VMs[V]) Start(ctx context.Context, id fleet.VMID,
	launch func(context.Context, V) error) (V, error) {
	var none V
	if !s.reserve(id) {
		return none, errs.New(errs.Exists, "VM %s exists", id)
	}
	if err := os.Mkdir(s.dir(id), 0o700); err != nil {
		s.forget(id)
		if errors.Is(err, os.ErrExist) {
			return none, errs.Wrap(errs.Exists, err, "VM %s exists", id).
				WithRemedy("adopt and remove it")
		}
		return none, errs.Wrap(errs.Internal, err, "make directory of VM %s", id)
	}
	v := s.wrap(Record{ID: id, CgroupParent: s.cfg.CgroupParent, Boot: s.bootID})
	err := v.onHost().WriteRecord()
	if err == nil {
		err = launch(ctx, v)
	}
	if err != nil {
		return none, errors.Join(err, s.abandon(ctx, v))
	}
	s.publish(v)
	return v, nil
}

// abandon removes what a failed start has made. Adopt returns what can't be removed.
func (s *VMs[V]) abandon(ctx context.Context, v V) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), UndoTimeout)
	defer cancel()
	v.onHost().End("never started")
	err := v.Remove(ctx)
	if err != nil {
		v.onHost().adopted = true
		s.publish(v)
	}
	return err
}

// Adopt returns the VMs that an earlier process left, ended and unfinished ones included. It kills
// what an interrupted start has left. Calling it again returns the same VMs, without removed ones.
func (s *VMs[V]) Adopt(ctx context.Context) ([]runtime.VM, error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "list VMs")
	}
	var found []runtime.VM
	for _, e := range entries {
		if !e.IsDir() || !vmIDPattern.MatchString(e.Name()) {
			continue
		}
		v, ok, err := s.adoptOne(ctx, fleet.VMID(e.Name()))
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, v)
		}
	}
	return found, nil
}

// adoptOne returns nothing for a VM that this process has started or is starting.
func (s *VMs[V]) adoptOne(ctx context.Context, id fleet.VMID) (v V, ok bool, err error) {
	if !s.reserve(id) {
		v, ok = s.known(id)
		return v, ok && v.onHost().adopted, nil
	}
	rec, err := ReadRecord(s.dir(id), s.cfg.CgroupParent)
	if err == nil {
		v, err = s.revive(ctx, rec)
	}
	if err != nil {
		s.forget(id)
		return v, false, err
	}
	s.publish(v)
	return v, true, nil
}

// revive makes a VM from its record. It runs if the recorded process still does.
func (s *VMs[V]) revive(ctx context.Context, rec Record) (V, error) {
	v := s.wrap(rec)
	h := v.onHost()
	h.adopted = true
	if rec.PID != 0 && rec.Boot == s.bootID && (s.kind.Revivable == nil || s.kind.Revivable(rec)) {
		pidfd, err := OpenProcess(rec.PID, rec.StartTicks)
		if err != nil {
			return v, err
		}
		if pidfd != nil {
			h.console.buffer = findBuffer(rec.PID)
			s.watchVM(h, pidfd)
			return v, nil
		}
	}
	h.End("ended while no worker was watching")
	return v, h.Cgroups.KillAndWait(ctx)
}

// Attend records a VM's process and watches it. It returns false if the process has ended already,
// in an unknown way.
func (s *VMs[V]) Attend(v *VM, pid int) (running bool, err error) {
	v.Record.PID, v.Record.StartedAt = pid, time.Now()
	var pidfd *os.File
	if v.Record.StartTicks, err = StartTicks(pid); err == nil {
		pidfd, err = OpenProcess(pid, v.Record.StartTicks)
	}
	if err != nil {
		return false, errs.Wrap(errs.Internal, err, "find the process of VM %s", v.Record.ID)
	}
	if pidfd == nil { // a child that nobody has waited for
		Reap(pid)
		return false, nil
	}
	s.watchVM(v, pidfd)
	return true, nil
}

// watchVM ends v when its process, held by pidfd, has; it stops when the driver is closed.
func (s *VMs[V]) watchVM(v *VM, pidfd *os.File) {
	s.watch.Go(func() error {
		v.console.Path = v.ConsolePath()
		failed := func(err error) {
			s.cfg.Logger.WarnContext(s.ctx, "console can't be bounded", "vm_id",
				v.Record.ID, "error", err)
		}
		ended, err := Watch(s.ctx, pidfd, v.console, failed)
		if last := errors.Join(v.console.Bound(), v.console.close()); last != nil {
			failed(last) // its last words
		}
		if err != nil {
			return errs.Wrap(errs.Internal, err, "watch VM %s", v.Record.ID)
		}
		if ended {
			how := Reap(v.Record.PID)
			if s.kind.HowItEnded != nil {
				how = s.kind.HowItEnded(v, how)
			}
			v.End(how)
		}
		return nil
	})
}

func (s *VMs[V]) dir(id fleet.VMID) string { return filepath.Join(s.cfg.Dir, string(id)) }

func (s *VMs[V]) wrap(rec Record) V {
	v := &VM{Record: rec, dir: s.dir(rec.ID), watched: s.ctx, forget: func() { s.forget(rec.ID) },
		Cgroups: Cgroups{Layout: s.layout, Parent: rec.CgroupParent, ID: string(rec.ID),
			Devices: s.kind.Devices}}
	if s.kind.RemoveRest != nil {
		v.removeRest = func(ctx context.Context) error { return s.kind.RemoveRest(ctx, v) }
	}
	v.ctx, v.ended = context.WithCancel(context.Background())
	return s.kind.Wrap(v)
}

// reserve claims an id for starting or adopting a VM, until publish or forget. It returns false if
// the id is taken.
func (s *VMs[V]) reserve(id fleet.VMID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.all[id]
	if !known {
		s.all[id] = entry[V]{}
	}
	return !known
}

func (s *VMs[V]) known(id fleet.VMID) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[id]
	return e.vm, e.there
}

func (s *VMs[V]) publish(v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[v.ID()] = entry[V]{vm: v, there: true}
}

func (s *VMs[V]) forget(id fleet.VMID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
}
