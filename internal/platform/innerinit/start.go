package innerinit

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// start runs a command and enters it into the table. With TTY it returns the terminal, which is the
// caller's to pass on and close.
func (t *table) start(id string, s innerapi.Start, stdio []*os.File) (*process, *os.File, error) {
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	cred, err := credential(s.User)
	if err != nil {
		return nil, nil, err
	}
	attr.Sys.Credential = cred
	path, err := lookPath(s.Args[0], attr.Dir, s.Env)
	if err != nil {
		return nil, nil, err
	}
	var terminal *os.File
	if s.TTY {
		var side *os.File
		if terminal, side, err = openTerminal(s, cred); err != nil {
			return nil, nil, err
		}
		defer side.Close()
		stdio = []*os.File{side, side, side}
		attr.Sys.Setctty = true
	}
	if len(stdio) != 3 {
		return nil, nil, errs.New(errs.Invalid,
			"a start needs three descriptors, got %d", len(stdio))
	}
	for _, f := range stdio {
		attr.Files = append(attr.Files, f.Fd())
	}
	fork := t.fork
	if s.NoFile != 0 || s.NoNewPrivileges {
		fork = t.forkLimited
	}
	p, err := fork(id, path, s, attr)
	if err != nil && terminal != nil {
		terminal.Close()
		terminal = nil
	}
	return p, terminal, err
}

func (t *table) fork(id, path string, s innerapi.Start, attr *syscall.ProcAttr) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[id] != nil {
		return nil, errs.New(errs.Conflict, "process %q exists already", id)
	}
	pid, err := forkGoingFirst(path, s.Args, attr)
	if err != nil {
		return nil, cantRun(s.Args[0], attr.Dir, err)
	}
	p := &process{id: id, pid: pid, keep: s.Keep, leave: s.Leave, done: make(chan struct{})}
	t.byID[id] = p
	t.byPID[pid] = p
	return p, nil
}

// forkGoingFirst starts a command that the kernel kills before blockd, platformd or this process
// when the VM runs out of memory: many small processes must not cost the machine its disk. The
// command inherits its OOM score at the fork, so its own children have it too. This process then
// restores its own score, which needs no privilege. If the host refuses the score, the command runs
// without. Calls must not overlap.
func forkGoingFirst(path string, args []string, attr *syscall.ProcAttr) (int, error) {
	const own, first = "/proc/self/oom_score_adj", "900" // of 1000
	before, err := os.ReadFile(own)
	if err == nil && os.WriteFile(own, []byte(first), 0) == nil {
		// never below what it was: always allowed
		defer func() { _ = os.WriteFile(own, before, 0) }()
	}
	return syscall.ForkExec(path, args, attr)
}

// cantRun maps a failed exec to what shells make of it: NotFound for 127, Denied for 126.
func cantRun(name, dir string, err error) error {
	if _, statErr := os.Stat(dir); statErr != nil {
		return errs.New(errs.Denied, "directory %s: %v", dir, reason(statErr))
	}
	switch {
	case errors.Is(err, unix.ENOENT): // of a script's interpreter, or a loader
		return errs.New(errs.NotFound, "%s: interpreter not found", name)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR),
		errors.Is(err, unix.EPERM):
		return errs.New(errs.Denied, "%s: %v", name, reason(err))
	case errors.Is(err, unix.E2BIG):
		return errs.New(errs.Denied, "%s: argument list too long", name)
	}
	return errs.Wrap(errs.Unavailable, err, "run %s", name)
}

// lookPath finds a command as a shell does, by the PATH of the command's own environment.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		full := name
		if !filepath.IsAbs(full) {
			full = filepath.Join(dir, full)
		}
		if err := executable(full); err != nil {
			return "", notRunnable(name, err)
		}
		return full, nil
	}
	var denied error
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			full := filepath.Join(d, name)
			err := executable(full)
			if err == nil {
				return full, nil
			}
			if errors.Is(err, unix.EACCES) {
				denied = err
			}
		}
	}
	if denied != nil {
		return "", notRunnable(name, denied)
	}
	return "", errs.New(errs.NotFound, "%s: command not found", name)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	if info.Mode()&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

func notRunnable(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return errs.New(errs.NotFound, "%s: no such file", name)
	}
	return errs.New(errs.Denied, "%s: %v", name, reason(err))
}

func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func openTerminal(s innerapi.Start, cred *syscall.Credential) (terminal, side *os.File, err error) {
	terminal, side, err = pty.Open()
	if err != nil {
		return nil, nil, errs.Wrap(errs.Unavailable, err, "open a terminal")
	}
	if s.Rows > 0 && s.Cols > 0 {
		err = pty.Setsize(terminal, &pty.Winsize{Rows: s.Rows, Cols: s.Cols})
	}
	if cred != nil && err == nil {
		err = side.Chown(int(cred.Uid), -1)
	}
	if err != nil {
		terminal.Close()
		side.Close()
		return nil, nil, errs.Wrap(errs.Unavailable, err, "set up a terminal")
	}
	return terminal, side, nil
}

// credential resolves "user", "user:group" or numbers by the container's own files; nil: root.
func credential(spec string) (*syscall.Credential, error) {
	if spec == "" {
		return nil, nil
	}
	name, group, hasGroup := strings.Cut(spec, ":")
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		if _, numErr := strconv.ParseUint(name, 10, 16); numErr != nil {
			return nil, errs.New(errs.Denied, "no user %q in the machine", name)
		}
		u = &user.User{Uid: name, Gid: name}
	}
	gid := u.Gid
	if hasGroup {
		gid = group
		if g, err := user.LookupGroup(group); err == nil {
			gid = g.Gid
		}
	}
	uidN, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gidN, err2 := strconv.ParseUint(gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, errs.New(errs.Denied, "no group %q in the machine", gid)
	}
	return &syscall.Credential{Uid: uint32(uidN), Gid: uint32(gidN),
		Groups: []uint32{uint32(gidN)}}, nil
}
