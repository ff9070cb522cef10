package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	initPath = "usr/bin/sluice-init" // in a release
	// for a caller without a deadline; a start takes some 20 ms
	startTimeout = 30 * time.Second
)

// Start makes the VM and returns once its init runs. Exists: its id is taken. If it fails it leaves
// nothing behind; otherwise the error says what, and a later Adopt returns it.
func (d *Driver) Start(ctx context.Context, spec runtime.Spec) (runtime.VM, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	ctx, cancel := onhost.Within(ctx, startTimeout)
	defer cancel()
	v, err := d.vms.Start(ctx, spec.ID,
		func(ctx context.Context, v *vm) error { return d.launch(ctx, v, spec) })
	if err != nil {
		return nil, err
	}
	return v, nil
}

func checkSpec(spec runtime.Spec) error {
	if err := onhost.CheckID(spec.ID); err != nil {
		return err
	}
	if spec.CacheBytes < 0 {
		return errs.New(errs.Invalid, "cache of %d bytes", spec.CacheBytes)
	}
	if !filepath.IsAbs(spec.Release) {
		return errs.New(errs.Invalid, "release directory %q is not an absolute path", spec.Release)
	}
	st, err := os.Stat(filepath.Join(spec.Release, initPath))
	if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return errs.New(errs.Invalid, "release %s has no program %s", spec.Release, initPath).
			WithRemedy("unpack a whole release there")
	}
	return nil
}

// launch does the work of Start, up to the watching.
func (d *Driver) launch(ctx context.Context, v *vm, spec runtime.Spec) error {
	allV2, err := v.Cgroups.AllV2()
	if err != nil {
		return err
	}
	cache, err := v.prepare(spec)
	if err != nil {
		return err
	}
	root := filepath.Join(v.Dir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return errs.Wrap(errs.Internal, err, "make root of VM %s", spec.ID)
	}
	p, err := v.spawn()
	if err != nil {
		return err
	}
	defer p.close()
	if err := d.attend(v, p.pid); err != nil {
		return err
	}
	s := setup{
		Root: root, Release: spec.Release, Boot: spec.Boot, Hostname: "vm-" + string(spec.ID),
		Join: v.Cgroups.Joins(), Mounts: guestMounts(v.Cgroups.Layout, allV2),
		AllV2: allV2, Cache: cache,
	}
	if err := p.send(s); err != nil {
		return err
	}
	if err := createLink(onhost.LinkName(spec.ID), p.pid); err != nil {
		return errors.Join(err, p.giveUp())
	}
	// Once told to go on, the setup process works without the worker. So it must be on record
	// before.
	if err := v.WriteRecord(); err != nil {
		return err
	}
	return p.finish(ctx)
}

// attend records the setup process, and watches it.
func (d *Driver) attend(v *vm, pid int) error {
	running, err := d.vms.Attend(v.VM, pid)
	if err == nil && !running {
		err = errs.New(errs.Internal, "the setup process of VM %s ended at once", v.ID())
	}
	return err
}

// prepare makes the VM's cgroups and its cache device, in parallel.
func (v *vm) prepare(spec runtime.Spec) (cache int, err error) {
	var g errgroup.Group
	cache = noCache
	g.Go(func() error {
		if err := v.Cgroups.Create(); err != nil {
			return err
		}
		return v.Cgroups.SetLimits(spec.Limits)
	})
	if spec.CacheBytes > 0 {
		g.Go(func() (err error) {
			cache, err = attachCache(cachePath(v.VM), spec.CacheBytes)
			return err
		})
	}
	return cache, g.Wait()
}

// setupProcess is this program again, as Child, on its way to become a VM's init.
type setupProcess struct {
	pid     int
	control *os.File // setup as JSON, then one byte: go
	status  *os.File // what failed; or one byte: about to become init
}

// spawn starts the setup process in the VM's namespaces and its v2 cgroup.
func (v *vm) spawn() (_ *setupProcess, err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return nil, errs.Wrap(errs.Exhausted, err, "make a pipe")
	}
	files = append(files, controlR)
	statusR, statusW, err := os.Pipe()
	if err != nil {
		_ = controlW.Close()
		return nil, errs.Wrap(errs.Exhausted, err, "make a pipe")
	}
	files = append(files, statusW)
	p := &setupProcess{control: controlW, status: statusR}
	console, err := v.OpenConsole()
	if err != nil {
		p.close()
		return nil, err
	}
	files = append(files, console)
	cgroup, err := os.Open(v.Cgroups.Inner(v.Cgroups.Unified))
	if err != nil {
		p.close()
		return nil, errs.Wrap(errs.Internal, err, "open cgroup of VM %s", v.ID())
	}
	files = append(files, cgroup)
	cmd := exec.Cmd{
		Path: "/proc/self/exe", Args: []string{setupArg0},
		Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Dir: "/",
		Stdout: console, Stderr: console, ExtraFiles: []*os.File{controlR, statusW},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
				unix.CLONE_NEWIPC |
				unix.CLONE_NEWUTS,
			Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
		},
	}
	if err := cmd.Start(); err != nil {
		p.close()
		return nil, errs.Wrap(errs.Internal, err, "start VM %s", v.ID())
	}
	p.pid = cmd.Process.Pid
	// The watcher reaps it, by its pid, as it does for adopted ones.
	return p, cmd.Process.Release()
}

func (p *setupProcess) send(s setup) error {
	if err := json.NewEncoder(p.control).Encode(s); err != nil {
		return errors.Join(errs.Wrap(errs.Internal, err, "send setup"), p.giveUp())
	}
	return nil
}

// giveUp ends the setup process, and returns its error, if it has reported one.
func (p *setupProcess) giveUp() error {
	_ = p.control.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.outcome(ctx)
}

// finish tells the setup process to go on, and waits until it has become init.
func (p *setupProcess) finish(ctx context.Context) error {
	if _, err := p.control.Write([]byte{goByte}); err != nil {
		return errors.Join(errs.Wrap(errs.Internal, err, "let setup go on"), p.giveUp())
	}
	return p.outcome(ctx)
}

// outcome waits until the setup process has become init, or ended: both close its end of the pipe.
func (p *setupProcess) outcome(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.status.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := io.ReadAll(io.LimitReader(p.status, 4096))
	switch {
	case err != nil:
		return errs.Wrap(errs.Unavailable, errors.Join(err, context.Cause(ctx)), "wait for setup")
	case len(b) == 0:
		return errs.New(errs.Internal, "the setup process was killed; the VM's console may say why")
	case len(b) > 1:
		return errs.New(errs.Internal, "set up VM: %s",
			strings.TrimPrefix(string(b), string(rune(execByte))))
	}
	return nil
}

func (p *setupProcess) close() {
	_ = p.control.Close()
	_ = p.status.Close()
}
