// Package serving has a test binary play the process that serves a block device, too: who uses a
// device must not be who serves it, or would wait for itself.
package serving

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

// The environment of a serving process.
const (
	whatEnv = "SLUICE_BENCH_SERVE"
	dirEnv  = "SLUICE_BENCH_DIR"
)

// Main is for TestMain: in a process that Start started it calls serve, with what is to be served
// and a directory for what that needs; in any other it runs the tests.
func Main(m *testing.M, serve func(ctx context.Context, what, dir string) error) {
	what := os.Getenv(whatEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	if err := serve(context.Background(), what, os.Getenv(dirEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Show makes dev a block device, tells the process that started this one, and answers its questions
// by answer, which may be nil if there are none. It ends, with the block device, when that process
// closes stdin.
func Show(ctx context.Context, dev disk.Device, name string,
	answer func(question string) (any, error)) error {
	front, err := frontend.Attach(ctx, dev,
		frontend.Config{Name: name, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	fmt.Println(front.BlockDevice())
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		a, err := answer(lines.Text())
		if err == nil {
			err = out.Encode(a)
		}
		if err != nil {
			return err
		}
	}
	return front.Close(ctx)
}

// Process is a process that serves a device.
type Process struct {
	Device string // the block device

	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	ended bool
}

// Start serves what Main's serve makes of what and dir, with more in its environment, until the
// test ends.
func Start(t *testing.T, what, dir string, env ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(append(os.Environ(), whatEnv+"="+what, dirEnv+"="+dir), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.Device = strings.TrimSpace(p.line())
	return p
}

func (p *Process) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the serving process: %v", err)
	}
	return line
}

// Ask asks the process, and decodes what it answers.
func (p *Process) Ask(question string, answer any) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, question); err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(p.line()), answer); err != nil {
		p.t.Fatal(err)
	}
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Close detaches the device, and ends the process in order.
func (p *Process) Close() {
	if p.ended {
		return
	}
	p.ended = true
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the serving process: %v", err)
	}
}

// Kill ends the process as a crash does.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Reap waits for a process that was killed.
func (p *Process) Reap() {
	if p.ended {
		return
	}
	p.ended = true
	p.Kill()
	_ = p.cmd.Wait() // says that it was killed
	p.stdin.Close()
}
