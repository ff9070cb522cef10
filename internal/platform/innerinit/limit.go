package innerinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/innerapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// LimitRole is the first argument with which the program of PID 1 is to call Limit.
const LimitRole = "container-limit"

// failFD is where Limit says what has failed: a byte for the step, and the errno.
const failFD = 3

// Steps of Limit.
const (
	stepLimit byte = iota
	stepRun
)

// noNewPrivileges, after a limit, is the word for that.
const noNewPrivileges = "+no-new-privileges"

// Limit becomes a command with a limit of open files, or one that can't get more rights, and never
// returns. Its arguments are the command's name, LimitRole, the limit (0: none, and noNewPrivileges
// may follow), the command's path, and the command's other arguments. Both have to be set in here:
// who lowers a hard limit, as PID 1 would around a fork, needs CAP_SYS_RESOURCE to raise it again,
// and the other can't be undone. PID 1 has told the kernel all else about the command.
func Limit(args []string) {
	unix.CloseOnExec(failFD) // PID 1 sees it closed once the command runs
	step, err := stepLimit, error(unix.EINVAL)
	if len(args) >= 4 {
		step, err = becomeLimited(args)
	}
	errno := unix.EINVAL
	errors.As(err, &errno)
	_, _ = unix.Write(failFD, []byte{step, byte(errno)})
	os.Exit(126)
}

func becomeLimited(args []string) (byte, error) {
	limit, forgoes := strings.CutSuffix(args[2], noNewPrivileges)
	n, err := strconv.ParseUint(limit, 10, 64)
	if err != nil {
		return stepLimit, err
	}
	if n != 0 {
		// syscall's, not unix's: it also makes Exec leave the limit alone.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE,
			&syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return stepLimit, err
		}
	}
	if forgoes {
		runtime.LockOSThread() // it is of this thread, which is the one that goes on
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return stepLimit, err
		}
	}
	return stepRun, syscall.Exec(args[3], append([]string{args[0]}, args[4:]...), os.Environ())
}

// forkLimited is fork by way of Limit. It returns once the command runs, or can't be run.
func (t *table) forkLimited(id, path string, s innerapi.Start,
	attr *syscall.ProcAttr) (*process, error) {
	failed, side, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer failed.Close()
	attr.Files = append(attr.Files, side.Fd()) // as failFD
	limit := strconv.FormatInt(s.NoFile, 10)
	if s.NoNewPrivileges {
		limit += noNewPrivileges
	}
	s.Args = append([]string{s.Args[0], LimitRole, limit, path}, s.Args[1:]...)
	// It isn't in the machine's root, and no user of the machine can write to it.
	p, err := t.fork(id, "/proc/self/exe", s, attr)
	side.Close()
	if err != nil {
		return nil, err
	}
	var why [2]byte
	if _, err := io.ReadFull(failed, why[:]); err != nil {
		return p, nil // it runs, or it was killed, which its exit tells
	}
	<-p.done
	if err := t.forget(id); err != nil {
		return nil, err
	}
	errno := syscall.Errno(why[1])
	if why[0] == stepLimit {
		return nil, errs.New(errs.Denied, "%s: limit of %s open files: %v", s.Args[0], limit, errno)
	}
	return nil, cantRun(s.Args[0], attr.Dir, errno)
}
