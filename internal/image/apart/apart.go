// Package apart unpacks images in a process of its own, with limits of the kernel's: a bug in what
// reads archives, or a bomb that gets past its bounds, ends one build and not the server. The
// process has no network, no credentials and no store. It gets an archive, and leaves a file.
//
// Invariant: what it leaves is read as bytes only, by who has the store.
package apart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Limits is what one build may take.
type Limits struct {
	Memory  int64         // bytes of address space; default 4 GiB
	CPU     time.Duration // default 1 h
	Time    time.Duration // in all, the archive's way here too; default 4 h
	Stored  int64         // bytes on the host's disk; default 64 GiB
	NoFiles int           // open at a time; default 512
}

const (
	defaultMemory  = 4 << 30
	defaultCPU     = time.Hour
	defaultTime    = 4 * time.Hour
	defaultNoFiles = 512
	fileExtra      = 64 << 20 // beyond the disk's size, for the largest file

	maxAnswer  = 1 << 20 // bytes
	pipeLinger = 5 * time.Second
)

func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Memory, defaultMemory)
	if l.CPU <= 0 {
		l.CPU = defaultCPU
	}
	if l.Time <= 0 {
		l.Time = defaultTime
	}
	if l.NoFiles <= 0 {
		l.NoFiles = defaultNoFiles
	}
	return l
}

// request is what the process is to do.
type request struct {
	Make   image.MakeConfig
	Limits Limits
}

// answer is the last thing that it says.
type answer struct {
	Made  image.Made
	Error *errs.Wire `json:",omitempty"`
}

// Maker returns what makes raw images by running a command, which calls Serve.
func Maker(command []string, limits Limits) image.Maker {
	limits = limits.withDefaults()
	return func(ctx context.Context, cfg image.MakeConfig, tar io.Reader) (image.Made, error) {
		ctx, cancel := context.WithTimeout(ctx, limits.Time)
		defer cancel()
		if cfg.MaxStored <= 0 {
			cfg.MaxStored = limits.Stored
		}
		what, err := json.Marshal(request{cfg, limits})
		if err != nil {
			return image.Made{}, errs.Wrap(errs.Internal, err, "ask for an image")
		}
		var stdout, stderr short
		cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)],
			string(what))...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Dir, cmd.Env = cfg.Temp, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + cfg.Temp}
		cmd.SysProcAttr = alone()
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
		cmd.WaitDelay = pipeLinger
		err = run(cmd, tar)
		return read(ctx, stdout.Bytes(), stderr.String(), err)
	}
}

// run runs the process, whose input is in.
func run(cmd *exec.Cmd, in io.Reader) error {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// Nobody waits for it: a read of what a client sends ends when the client's request does, which
	// waits for this. What it can't write, the process has said why.
	var feeding errgroup.Group
	feeding.Go(func() error {
		_, err := io.Copy(stdin, in)
		return errors.Join(err, stdin.Close())
	})
	err = cmd.Wait()
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what it started and left
	return err
}

// alone gives the process a group that ends with it, and, where that is allowed, no network.
func alone() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		attr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
	}
	return attr
}

// read returns what the process has said, or why it has not.
func read(ctx context.Context, stdout []byte, stderr string, runErr error) (image.Made, error) {
	var a answer
	if err := json.Unmarshal(stdout, &a); err == nil && (runErr == nil || a.Error != nil) {
		if a.Error != nil {
			return image.Made{}, a.Error.Err()
		}
		return a.Made, nil
	}
	if ctx.Err() != nil {
		return image.Made{}, errs.Wrap(errs.Unavailable, ctx.Err(), "the build was given up")
	}
	var exit *exec.ExitError
	if errors.As(runErr, &exit) {
		last := strings.TrimSpace(stderr)
		last, _, _ = strings.Cut(last, "\n")
		return image.Made{}, errs.New(errs.Exhausted,
			"the build ended by itself (%v: %s): it took more than the server gives to one, or "+
				"the archive is no image", exit, last).
			WithRemedy("make the image smaller, or of fewer and smaller layers")
	}
	return image.Made{}, errs.Wrap(errs.Unavailable, runErr, "start the build")
}

// short keeps the beginning of what is written to it.
type short struct{ bytes.Buffer }

func (s *short) Write(p []byte) (int, error) {
	if n := min(len(p), maxAnswer-s.Len()); n > 0 {
		_, _ = s.Buffer.Write(p[:n]) // never fails
	}
	return len(p), nil
}

// Serve does what a request says with the archive from in, and answers to out. It limits its own
// process first, for good.
func Serve(ctx context.Context, what string, in io.Reader, out io.Writer) error {
	var r request
	if err := json.Unmarshal([]byte(what), &r); err != nil {
		return errs.Wrap(errs.Invalid, err, "read what to make")
	}
	var a answer
	err := r.Limits.apply(r.Make.Size)
	if err == nil {
		a.Made, err = image.Make(ctx, r.Make, image.Tar(in))
	}
	if err != nil {
		wire := errs.ToWire(err)
		a.Error = &wire
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return errs.Wrap(errs.Unavailable, err, "answer")
	}
	return nil
}

// apply sets the limits of this process and of what it starts.
func (l Limits) apply(size int64) error {
	for which, most := range map[int]uint64{
		unix.RLIMIT_AS:     uint64(l.Memory),
		unix.RLIMIT_CPU:    uint64(math.Ceil(l.CPU.Seconds())),
		unix.RLIMIT_FSIZE:  uint64(size + fileExtra),
		unix.RLIMIT_NOFILE: uint64(l.NoFiles),
		unix.RLIMIT_CORE:   0,
	} {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return errs.Wrap(errs.Unavailable, err, "limit the build")
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return errs.Wrap(errs.Unavailable, err, "limit the build")
	}
	return nil
}
