package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
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
	if err := v.makeDirs(); err != nil {
		return err
	}
	p, err := v.spawn()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.send(setup{
		Dir: v.Dir(), Release: spec.Release, Boot: spec.Boot, Hostname: "vm-" + string(spec.ID),
		Cgroups: v.Cgroups, Mounts: guestMounts(v.Cgroups.Layout, allV2),
		AllV2: allV2, Cache: cache, FirstID: v.Record.FirstID,
	}); err != nil {
		return err
	}
	if err := p.started(ctx); err != nil {
		return err
	}
	if err := d.attend(v, p.pid); err != nil {
		return errors.Join(err, p.giveUp())
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

func (v *vm) makeDirs() error {
	for _, name := range []string{rootDir, diskDir} {
		if err := os.Mkdir(filepath.Join(v.Dir(), name), 0o755); err != nil {
			return errs.Wrap(errs.Internal, err, "make the directories of VM %s", v.ID())
		}
	}
	return nil
}

// attend records the setup process, and watches it.
func (d *Driver) attend(v *vm, pid int) error {
	running, err := d.vms.Attend(v.VM, pid)
	if err == nil && !running {
		err = errs.New(errs.Internal, "the setup process of VM %s ended at once", v.ID())
	}
	return err
}

// prepare takes the VM's ids, and makes its cache device and its cgroups.
func (v *vm) prepare(spec runtime.Spec) (cache int, err error) {
	if v.Record.FirstID, err = takeIDs(v.Dir()); err != nil {
		return noCache, err
	}
	if err := v.WriteRecord(); err != nil { // so that whoever removes it gives them back
		return noCache, err
	}
	cache = noCache
	if spec.CacheBytes > 0 {
		if cache, err = attachCache(cachePath(v.VM), spec.CacheBytes); err != nil {
			return noCache, err
		}
		rule, err := loopRule(cache)
		if err != nil {
			return noCache, err
		}
		v.Cgroups.Devices = append(v.Cgroups.Devices, rule)
	}
	return cache, v.makeCgroups(spec.Limits)
}

func (v *vm) makeCgroups(limits fleet.Resources) error {
	if err := v.Cgroups.Create(); err != nil {
		return err
	}
	if err := v.Cgroups.SetLimits(limits); err != nil {
		return err
	}
	if err := v.Cgroups.CreateBeside(); err != nil {
		return err
	}
	return v.Cgroups.Give(v.Record.FirstID)
}

// setupProcess is this program again, as Child: the VM's broker, and its child, on its way to
// become the VM's init.
type setupProcess struct {
	pid     int      // of the child, once it is there
	control *os.File // setup as JSON, then one byte: go
	status  *os.File // what failed; or the child's pid, and one byte: about to become init
	in      *bufio.Reader
}

// spawn starts the broker in a mount namespace of its own, beside the VM's v2 cgroup.
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
	p := &setupProcess{control: controlW, status: statusR, in: bufio.NewReader(statusR)}
	console, err := v.OpenConsole()
	if err != nil {
		p.close()
		return nil, err
	}
	files = append(files, console)
	cgroup, err := os.Open(v.Cgroups.Beside())
	if err != nil {
		p.close()
		return nil, errs.Wrap(errs.Internal, err, "open cgroup of VM %s", v.ID())
	}
	files = append(files, cgroup)
	cmd := exec.Cmd{
		Path: "/proc/self/exe", Args: []string{brokerArg0},
		Env: []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=12MiB"}, Dir: "/",
		Stdout: console, Stderr: console, ExtraFiles: []*os.File{controlR, statusW},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS,
			Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())},
	}
	if err := cmd.Start(); err != nil {
		p.close()
		return nil, errs.Wrap(errs.Internal, err, "start VM %s", v.ID())
	}
	v.Record.Beside = cmd.Process.Pid
	// Both are reaped by their pids: the VM as adopted ones are, and the broker with what the VM
	// leaves.
	return p, cmd.Process.Release()
}

func (p *setupProcess) send(s setup) error {
	if err := json.NewEncoder(p.control).Encode(s); err != nil {
		return errors.Join(errs.Wrap(errs.Internal, err, "send setup"), p.giveUp())
	}
	return nil
}

// started waits until the process is there that becomes the VM's init, and takes its pid.
func (p *setupProcess) started(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.status.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := p.in.ReadByte()
	if err == nil && b == pidByte {
		var line string
		if line, err = p.in.ReadString('\n'); err == nil {
			p.pid, err = strconv.Atoi(strings.TrimSpace(line))
		}
		if err == nil {
			return nil
		}
	}
	if err == nil {
		err = p.in.UnreadByte()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return errs.Wrap(errs.Unavailable, errors.Join(err, context.Cause(ctx)), "wait for setup")
	}
	if err := p.outcome(ctx); err != nil {
		return err
	}
	return errs.New(errs.Internal, "the setup process told no pid")
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
	b, err := io.ReadAll(io.LimitReader(p.in, 4096))
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
