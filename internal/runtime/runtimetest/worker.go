package runtimetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
)

// workerEnv makes a test binary a worker process; its value is a workerOrder as JSON.
const workerEnv = "SLUICE_RUNTIMETEST_WORKER"

// workerOrder is what a worker process does: start VMs one after the other, and then wait to be
// killed.
type workerOrder struct {
	Dir   string
	Specs []runtime.Spec
}

// Worker is to be called by TestMain of a package that runs the suite. In a process that the suite
// started as a worker it never returns.
func Worker(newDriver func(dir string) (runtime.Driver, error)) {
	text := os.Getenv(workerEnv)
	if text == "" {
		return
	}
	err := work(text, newDriver)
	fmt.Fprintln(os.Stderr, "worker:", err)
	os.Exit(1)
}

// work prints a line when it begins, and one for each VM that it has started.
func work(text string, newDriver func(dir string) (runtime.Driver, error)) error {
	var order workerOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	if err := os.Unsetenv(workerEnv); err != nil {
		return err
	}
	d, err := newDriver(order.Dir)
	if err != nil {
		return err
	}
	fmt.Println("begin")
	for _, spec := range order.Specs {
		vm, err := d.Start(context.Background(), spec)
		if err != nil {
			return err
		}
		fmt.Println("started", vm.ID())
	}
	time.Sleep(time.Minute) // killed long before
	return errors.New("nobody killed this worker")
}

// workerProcess is a running worker process.
type workerProcess struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// runWorker starts a worker process that starts n VMs, and returns once it begins.
func (e *env) runWorker(n int, change func(*runtime.Spec)) (*workerProcess, []fleet.VMID) {
	e.t.Helper()
	e.close()
	order := workerOrder{Dir: e.dir}
	var ids []fleet.VMID
	for range n {
		spec := e.spec()
		if change != nil {
			change(&spec)
		}
		ids = append(ids, spec.ID)
		order.Specs = append(order.Specs, spec)
	}
	text, err := json.Marshal(order)
	if err != nil {
		e.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	cmd.Stderr = e.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	w := &workerProcess{cmd: cmd, lines: bufio.NewScanner(out)}
	e.t.Cleanup(w.kill)
	w.waitFor(e.t, "begin")
	return w, ids
}

func (w *workerProcess) waitFor(t *testing.T, line string) {
	t.Helper()
	for w.lines.Scan() {
		if strings.HasPrefix(w.lines.Text(), line) {
			return
		}
	}
	t.Fatalf("the worker process ended before it said %q", line)
}

// kill is SIGKILL; it returns when the process is gone.
func (w *workerProcess) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}
