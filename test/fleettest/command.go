package fleettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // -1: killed by a signal, or after its time
}

// Sluice runs the command line against the fleet, for a minute at most.
func (f *Fleet) Sluice(args ...string) Result { return f.SluiceIn(nil, args...) }

// SluiceIn is Sluice with a stdin.
func (f *Fleet) SluiceIn(stdin io.Reader, args ...string) Result {
	f.t.Helper()
	return Run(f.t, f.cfg.Binary, append(os.Environ(), "SLUICE_DIR="+f.Dir, "SLUICE_URL="),
		stdin, args...)
}

// Binary is the path of the command line.
func (f *Fleet) Binary() string { return f.cfg.Binary }

// Run runs a command for a minute at most. That it can't be run at all fails the test.
func Run(t testing.TB, binary string, env []string, stdin io.Reader, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %q: %v", binary, args, err)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(),
		Code: cmd.ProcessState.ExitCode()}
}
