package inner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/platform/ownsync"
	"github.com/sluice-platform/sluice/internal/platform/ownview"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const containerName = "machine"

// Config of the container.
type Config struct {
	Dir        string // on the VM's tmpfs; the only place outside the container where it has files
	Runtime    string // the OCI runtime's program
	InitBinary string // sluice-init
	HostLink   string // the VM's link to its worker
	// who mounts the disk; nil: this VM has a kernel of its own
	Broker *diskbroker.Client
	Log    *slog.Logger
}

// Container is the inner container. Safe for concurrent use, except that the caller must not call
// Enter and Kill at the same time.
type Container struct {
	cfg    Config
	pid    int // of its PID 1, in the VM
	client *innerapi.Client
	pidfd  *os.File
	view   *ownview.View

	showing atomic.Bool
}

// record is what a later platformd needs to find the container again.
type record struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // start time, which differs if the pid is reused
}

// Make makes an empty container with its link. It first removes what an earlier, unfinished Make
// has left.
func Make(ctx context.Context, cfg Config) (*Container, error) {
	if err := remains(ctx, cfg); err != nil {
		return nil, err
	}
	bundle := filepath.Join(cfg.Dir, "bundle")
	if err := os.MkdirAll(cfg.Dir,
		0o711); err != nil { //nolint:gosec // the container's root passes through it
		return nil, fmt.Errorf("make container directory: %w", err)
	}
	if _, err := ownview.Make(cfg.viewDir()); err != nil {
		return nil, err
	}
	if err := writeBundle(bundle, cfg.InitBinary, cfg.viewDir()); err != nil {
		return nil, err
	}
	listener, err := listen(cfg.socket())
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	err = ownsync.Filter(func(syncs *os.File) error { // in the order of innerapi's descriptors
		if err := filterSockets(); err != nil {
			return err
		}
		return runRuntime(ctx, cfg, []*os.File{listener, syncs}, "run", "--detach",
			"--preserve-fds", "2",
			"--pid-file", cfg.pidFile(), "--bundle", bundle, containerName)
	})
	if err != nil {
		return nil, err
	}
	c, err := open(cfg)
	if err != nil {
		return nil, err
	}
	err = addLink(c.pid, cfg.HostLink)
	if err == nil {
		err = c.answers(ctx)
	}
	if err == nil {
		err = c.save() // last, so that a container on record is complete
	}
	if err != nil {
		return nil, errors.Join(err, c.Kill(ctx))
	}
	return c, nil
}

// Adopt returns the container that an earlier platformd made. NotFound: there is none, or it has
// ended.
func Adopt(ctx context.Context, cfg Config) (*Container, error) {
	data, err := os.ReadFile(cfg.recordFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no container")
	}
	if err != nil {
		return nil, fmt.Errorf("read container record: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "read container record")
	}
	if started, err := startTime(r.PID); err != nil || started != r.Started {
		return nil, errs.New(errs.NotFound, "the container has ended")
	}
	c, err := open(cfg)
	if err != nil {
		return nil, err
	}
	if c.halfEntered() {
		return nil, errors.Join(c.Kill(ctx),
			errs.New(errs.NotFound, "the container was left half-way into the machine's root"))
	}
	// An earlier platformd may have frozen it. If a stall goes on, watchStall freezes it again.
	return c, errors.Join(c.Thaw(), c.answers(ctx))
}

// answers returns nil once the container's PID 1 answers.
func (c *Container) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.client.Ping(ctx)
}

const answerTime = 10 * time.Second

// remains removes what an earlier Make left when its platformd was killed: a container without a
// record, or an OCI runtime that still runs.
func remains(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, remainsTime)
	defer cancel()
	for {
		left, err := leftovers(cfg.Runtime)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end what is left of a container: %w", err)
			}
		}
		if backoff.Sleep(ctx, time.Millisecond) != nil {
			return errs.New(errs.Unavailable,
				"processes %v are left of a container and don't end", left)
		}
	}
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return fmt.Errorf("remove what is left of a container: %w", err)
	}
	return nil
}

const remainsTime = 10 * time.Second

// leftovers returns the processes of the VM that run the OCI runtime, or are in a user namespace of
// their own. Both exist only once a container is being made.
func leftovers(runtime string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return nil, fmt.Errorf("look at the own user namespace: %w", err)
	}
	var left []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, exeErr := os.Readlink("/proc/" + e.Name() + "/exe")
		users, usersErr := os.Readlink("/proc/" + e.Name() + "/ns/user")
		if exeErr == nil && filepath.Base(exe) == filepath.Base(runtime) || usersErr == nil &&
			users != own {
			left = append(left, pid)
		}
	}
	return left, nil
}

func (cfg Config) socket() string     { return filepath.Join(cfg.Dir, "init.sock") }
func (cfg Config) pidFile() string    { return filepath.Join(cfg.Dir, "pid") }
func (cfg Config) viewDir() string    { return filepath.Join(cfg.Dir, "view") }
func (cfg Config) recordFile() string { return filepath.Join(cfg.Dir, "container.json") }

func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for the container's init: %w", err)
	}
	l.SetUnlinkOnClose(false) // the container's init holds it open
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("hand on the container's socket: %w", err)
	}
	return f, nil
}

func runRuntime(ctx context.Context, cfg Config, pass []*os.File, args ...string) error {
	cmd := exec.CommandContext(ctx, cfg.Runtime,
		append([]string{"--root", filepath.Join(cfg.Dir, "runtime"),
			"--log", filepath.Join(cfg.Dir, "runtime.log"), "--log-format", "json"}, args...)...)
	// the VM's console; as files, so that the runtime's child may keep them
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.ExtraFiles = pass
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "make the inner container: %s",
			lastMessage(filepath.Join(cfg.Dir, "runtime.log")))
	}
	return nil
}

// lastMessage returns the message of the last line of the runtime's log.
func lastMessage(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "the runtime says nothing"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var line struct {
		Msg string `json:"msg"`
	}
	if json.Unmarshal([]byte(lines[len(lines)-1]), &line) != nil {
		return lines[len(lines)-1]
	}
	return line.Msg
}

// open takes the container whose pid is on file.
func open(cfg Config) (*Container, error) {
	data, err := os.ReadFile(cfg.pidFile())
	if err != nil {
		return nil, fmt.Errorf("read the container's pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "read the container's pid")
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, errs.Wrap(errs.NotFound, err, "the container has ended")
	}
	return &Container{cfg: cfg, pid: pid, client: innerapi.NewClient(cfg.socket()),
		pidfd: os.NewFile(uintptr(fd), "pidfd"), view: ownview.Open(cfg.viewDir())}, nil
}

func (c *Container) save() error {
	started, err := startTime(c.pid)
	if err != nil {
		return err
	}
	data, err := json.Marshal(record{PID: c.pid, Started: started})
	if err != nil {
		return fmt.Errorf("encode container record: %w", err)
	}
	if err := os.WriteFile(c.cfg.recordFile(), data, 0o600); err != nil {
		return fmt.Errorf("write container record: %w", err)
	}
	return nil
}

// startTime returns the 22nd field of /proc/pid/stat.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", errs.Wrap(errs.NotFound, err, "process %d", pid)
	}
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", errs.New(errs.Corrupt, "stat of process %d", pid)
	}
	return fields[19], nil
}

// Client talks to the container's PID 1.
func (c *Container) Client() *innerapi.Client { return c.client }

// ShowOwn has the machine see the processors, memory and load that it has as they are now. It does
// nothing while another call does so.
func (c *Container) ShowOwn(r fleet.Resources) error {
	if !c.showing.CompareAndSwap(false, true) {
		return nil
	}
	defer c.showing.Store(false)
	own, err := c.cgroups()
	if err != nil {
		return errs.Wrap(errs.NotFound, err, "the container has ended")
	}
	dirs := make([]string, 0, len(own))
	for _, g := range own {
		dirs = append(dirs, g.Dir)
	}
	return c.view.Update(r, dirs)
}

// Wait returns nil when the container has ended. Its PID 1 ends last, once all other processes and
// their use of mounts are gone.
func (c *Container) Wait(ctx context.Context) error {
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for the container: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = c.pidfd.SetReadDeadline(time.Time{})
		}
	}()
	err = raw.Read(func(fd uintptr) bool {
		n, pollErr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || pollErr != nil && !errors.Is(pollErr, unix.EINTR)
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Kill ends every process of the container, and returns when none is left. Idempotent.
func (c *Container) Kill(ctx context.Context) error {
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the container: %w", err)
	}
	// what a v1 freezer holds doesn't die; where it fails for another reason, it has ended
	thawErr := c.Thaw()
	if err := c.Wait(ctx); err != nil {
		return errors.Join(err, thawErr)
	}
	return nil
}
