// Command burn keeps this host's cores busy while another command runs: so many threads of the
// usual priority, for at most so long. They end with the command, and with this process. Without a
// command it burns for that long.
//
//	go run ./test/burn -n 30 -for 2h -- scripts/test.sh ./test/chaos
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// chunk is how much is computed between two looks whether to stop.
const chunk = 1 << 20

func main() {
	n := flag.Int("n", 30, "threads that are busy")
	most := flag.Duration("for", time.Hour,
		"longest time; the command goes on without the load then")
	flag.Parse()
	code, err := run(*n, *most, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "burn:", err)
	}
	os.Exit(code)
}

// run burns while the command runs, and returns its exit code.
func run(n int, most time.Duration, command []string) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	burning, cool := context.WithTimeout(ctx, most)
	defer cool()
	runtime.GOMAXPROCS(n + 2)
	var over atomic.Bool
	context.AfterFunc(burning, func() { over.Store(true) })
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			runtime.LockOSThread()
			burn(&over)
			return nil
		})
	}
	if len(command) == 0 {
		return 0, g.Wait()
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	err := cmd.Run()
	cool()
	_ = g.Wait() // burners have no errors
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// burn computes until it is told to stop.
func burn(over *atomic.Bool) {
	x := uint64(1)
	for !over.Load() {
		for range chunk {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
	}
	runtime.KeepAlive(x)
}
