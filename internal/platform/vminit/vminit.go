// Package vminit is PID 1 of a VM. It is kept tiny, because nothing can restart it.
//
// Invariants: it starts blockd and platformd, and ends with the VM. It restarts a platformd that
// dies, and kills one that is stuck; the machine runs on meanwhile. When blockd ends the VM ends,
// because its disk can't be trusted any more. Acknowledged data is in the store, where another VM
// finds it.
package vminit

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

const (
	// between blockd's end and the VM's, for platformd to say why
	exitGrace  = time.Second
	restartGap = 100 * time.Millisecond // between starts of platformd
	// more than the time between the kernel's count and the end of the process that it kills
	oomRecent = 5 * time.Second
	powerOff  = 2 * time.Second // for the others to end at SIGTERM
)

// Config of init.
type Config struct {
	Binary string // sluice-init itself
	// Boot waits for the boot document.
	Boot func(ctx context.Context) (guestapi.Boot, error)
	// Broker serves the VM on its host; nil: it has a kernel of its own.
	Broker *diskbroker.Client
	Log    *slog.Logger
}

// Init is PID 1.
type Init struct {
	cfg Config

	// mu is held over start and wait, neither of which blocks, so that no child ends before it is
	// known.
	mu       sync.Mutex
	children map[int]*child

	killed    *memcg.Counter        // of the platform's own processes, for lack of memory
	platformd atomic.Pointer[child] // the newest
	restarts  fleet.PlatformReport  // of platformd; supervise alone has it
}

type child struct {
	role  string
	pid   int
	stuck string        // why it was killed; by mu
	done  chan struct{} // closed once how is set
	how   string
}

// New returns an Init.
func New(cfg Config) *Init { return &Init{cfg: cfg, children: map[int]*child{}} }

// Run runs the VM, and returns when the VM should end. The kernel then kills what is left.
func (in *Init) Run(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := prepare(); err != nil {
		return err
	}
	own, err := memcg.Of(os.Getpid())
	if err != nil {
		return fmt.Errorf("find the platform's cgroup: %w", err)
	}
	in.killed = memcg.NewCounter(own, memcg.Beside(own, guestapi.BlockdCgroup))
	var g errgroup.Group
	reaping, stopReaping := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return in.reap(reaping) })
	living, stopLiving := context.WithCancel(ctx)
	started := make(chan struct{})
	g.Go(func() error {
		err := in.care(living, started)
		if err != nil {
			stopLiving() // it must not become anybody's, or can't be what it is
		}
		return err
	})
	g.Go(func() error {
		err := in.watchBroker(living)
		if err != nil {
			stopLiving()
		}
		return err
	})
	err = in.supervise(living, started)
	stopLiving()
	stopReaping()
	return errors.Join(err, g.Wait())
}

// care waits for the boot document and then watches platformd. The other processes wait for the
// document by themselves. If it can't be read or followed, the VM ends.
func (in *Init) care(ctx context.Context, started <-chan struct{}) error {
	boot, err := in.cfg.Boot(ctx)
	if err == nil {
		err = identify(boot)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-started:
	case <-ctx.Done():
		return nil
	}
	return in.watchPlatformd(ctx, boot)
}

// watchBroker returns when the VM's broker has ended, an error, or ctx has. Without it the disk
// can't be mounted or given back.
func (in *Init) watchBroker(ctx context.Context) error {
	if in.cfg.Broker == nil {
		return nil
	}
	if err := in.cfg.Broker.Watch(ctx); err != nil {
		return nil //nolint:nilerr // the VM ends for another reason
	}
	in.cfg.Log.ErrorContext(ctx, "the VM's broker has ended, and so does the VM")
	return errors.New("the VM's broker has ended")
}

// supervise starts blockd and platformd, reports that, and restarts platformd when it ends.
func (in *Init) supervise(ctx context.Context, started chan<- struct{}) error {
	blockd, err := in.start("blockd")
	if err != nil {
		return err
	}
	platformd, err := in.startPlatformd()
	if err != nil {
		return err
	}
	close(started)
	for {
		select {
		case <-blockd.done:
			in.cfg.Log.ErrorContext(ctx, "blockd has ended, and so does the VM", "how", blockd.how)
			_ = backoff.Sleep(ctx, exitGrace) // platformd sees it too, and tells the worker
			return fmt.Errorf("blockd: %s", blockd.how)
		case <-platformd.done:
			in.cfg.Log.ErrorContext(ctx, "platformd has ended, and is started again", "how",
				platformd.how)
			_ = backoff.Sleep(ctx, restartGap)
			in.restarts.Count++
			in.restarts.Last, in.restarts.Reason = time.Now(), platformd.how
			if platformd, err = in.startPlatformd(); err != nil {
				return err
			}
		case <-ctx.Done():
			return in.end(blockd, platformd)
		}
	}
}

// startPlatformd starts a platformd, and tells it how the earlier ones ended.
func (in *Init) startPlatformd() (*child, error) {
	var env []string
	if in.restarts.Count > 0 {
		data, err := json.Marshal(in.restarts)
		if err != nil {
			return nil, fmt.Errorf("encode restarts of platformd: %w", err)
		}
		env = append(env, envRestarts+"="+string(data))
	}
	c, err := in.start("platformd", env...)
	if err == nil {
		in.platformd.Store(c)
	}
	return c, err
}

// envRestarts is the variable by which a platformd gets a report of the earlier ones.
const envRestarts = "SLUICE_PLATFORMD_RESTARTS"

// Restarts returns, in a platformd, the report of the earlier ones; nil: it is the first.
func Restarts() (*fleet.PlatformReport, error) {
	data := os.Getenv(envRestarts)
	if data == "" {
		return nil, nil
	}
	var r fleet.PlatformReport
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", envRestarts, err)
	}
	return &r, nil
}

// end powers the VM off.
func (in *Init) end(all ...*child) error {
	deadline := time.After(powerOff)
	for _, c := range all {
		if err := unix.Kill(c.pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end %s: %w", c.role, err)
		}
	}
	for _, c := range all {
		select {
		case <-c.done:
		case <-deadline:
			return nil
		}
	}
	return nil
}

func (in *Init) start(role string, env ...string) (*child, error) {
	cmd := exec.Command(in.cfg.Binary, role) //nolint:noctx // ended by signal, and reaped below
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.Env = append(cmd.Env, env...)
	if role == "blockd" {
		// A process that ends unmounts what it alone still sees, before it closes its files. With
		// the machine's file system, blockd would wait for itself for ever. So blockd never sees
		// it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	c := &child{role: role, pid: cmd.Process.Pid, done: make(chan struct{})}
	in.children[c.pid] = c
	return c, cmd.Process.Release()
}

// reap collects ended children, also those whose parents have ended.
func (in *Init) reap(ctx context.Context) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		for in.reapOne() {
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
		}
	}
}

func (in *Init) reapOne() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if err != nil || pid <= 0 {
		return false
	}
	c := in.children[pid]
	if c == nil || !(status.Exited() || status.Signaled()) {
		return true
	}
	delete(in.children, pid)
	c.how = ending(status, c.stuck, in.killed.Recent(oomRecent))
	close(c.done)
	return true
}

// ending returns how a process has ended, for people. It says why init has killed it as stuck, and
// whether the kernel has just killed a process of the platform for lack of memory.
func ending(status unix.WaitStatus, stuck string, outOfMemory bool) string {
	switch {
	case stuck != "":
		return "killed because " + stuck
	case status.Signaled() && status.Signal() == unix.SIGKILL && outOfMemory:
		return "killed: " + guestapi.PlatformOutOfMemory()
	case status.Signaled():
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

// seed adds fresh bytes to the kernel's random pool, so that VMs resumed from one saved VM don't
// share random numbers.
func seed(data []byte) error {
	if len(data) == 0 {
		data = make([]byte, 32)
		if _, err := rand.Read(data); err != nil {
			return fmt.Errorf("read random bytes: %w", err)
		}
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("seed random numbers: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("seed random numbers: %w", err)
	}
	return nil
}
