// Package servertest runs programs of others as servers of a test, on free ports of the loopback
// interface. They end with the test's process at the latest.
package servertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	installWait = 20 * time.Minute
	again       = 20 * time.Millisecond // between two looks whether a server answers
	ports       = 5                     // that are tried
)

// Install returns the path of a program that a script of the repository's scripts directory finds
// or installs, and prints.
func Install(t testing.TB, script string) string {
	t.Helper()
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no source path")
	}
	path := filepath.Join(filepath.Dir(here), "..", "..", "..", "scripts", script)
	ctx, cancel := context.WithTimeout(t.Context(), installWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}

// OnFreePort calls start with an address that is free, or fails the test. It may be taken a moment
// later: then start fails, and another is tried.
func OnFreePort(t testing.TB, start func(addr string) error) {
	t.Helper()
	for range ports {
		err := start(freeAddress(t))
		if err == nil {
			return
		}
		t.Log(err)
	}
	t.Fatalf("the server did not start on any of %d ports", ports)
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Server is a program that runs. The zero value is one that has ended.
type Server struct {
	process *os.Process
	ended   chan error
}

// Start runs a program, and returns once answers gives no error. It fails if the program ends, or
// if that takes longer than within; it has ended then. The error has what the program said.
func Start(cmd *exec.Cmd, within time.Duration, answers func() error) (*Server, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Server{process: cmd.Process, ended: make(chan error, 1)}
	var waiter errgroup.Group
	waiter.Go(func() error {
		s.ended <- cmd.Wait()
		return nil
	})
	name := filepath.Base(cmd.Path)
	for deadline := time.Now().Add(within); ; time.Sleep(again) {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("%s ended: %w\n%s", name, err, out.String())
		default:
		}
		err := answers()
		if err == nil {
			return s, nil
		}
		if time.Now().After(deadline) {
			s.Kill()
			return nil, fmt.Errorf("%s did not answer within %s: %w\n%s", name, within, err,
				out.String())
		}
	}
}

// Kill ends the program at once. It may be called any number of times, also of nil.
func (s *Server) Kill() {
	if s == nil || s.process == nil {
		return
	}
	_ = s.process.Kill()
	<-s.ended
	s.process = nil
}

// Signal sends a signal to the program, or fails the test.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
