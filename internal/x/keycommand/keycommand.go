// Package keycommand runs the commands by which operators have keys elsewhere than in files: in a
// KMS, age or a TPM.
package keycommand

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Limit is how long a command may take.
const Limit = time.Minute

const (
	exitWithin   = 2 * time.Second // between being told to end and being ended
	maxComplaint = 512             // bytes of its stderr
)

// Run returns what a shell command line prints, given more arguments and an input, and the
// beginning of what it says on stderr. After Limit, or when ctx ends, it ends all that the shell
// has started; the error is then that of the context.
func Run(ctx context.Context, line string, in []byte, args ...string) (out []byte, said string,
	err error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	if len(args) > 0 {
		line += ` "$@"`
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", line, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = exitWithin
	cmd.Stdin = bytes.NewReader(in)
	var stderr complaint
	cmd.Stderr = &stderr
	out, err = cmd.Output()
	said = strings.TrimSpace(string(stderr))
	if ctx.Err() != nil {
		return nil, said, ctx.Err()
	}
	return out, said, err
}

// IsLate reports whether an error of Run is that the command took too long, or its caller had no
// more time for it.
func IsLate(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// complaint keeps the beginning of what is written to it.
type complaint []byte

func (c *complaint) Write(p []byte) (int, error) {
	*c = append(*c, p[:min(len(p), maxComplaint-len(*c))]...)
	return len(p), nil
}
