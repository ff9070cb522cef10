package devfleet_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/devfleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// standIn is a daemon that does nothing but say that it is ready, as both server and worker.
const standIn = `#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --ready-file) ready=$2 ;; esac
  shift
done
echo '["http://127.0.0.1:1","http://[::1]:2"]' > $ready.tmp && mv $ready.tmp $ready
while :; do sleep 0.2; done
`

type noVMs struct{ runtime.Driver }

func (noVMs) Adopt(context.Context) ([]runtime.VM, error) { return nil, nil }

func (noVMs) Close() error { return nil }

func drivers(string, string, string) (devfleet.Driver, error) { return noVMs{}, nil }

func newFleet(t *testing.T) (*devfleet.Fleet, devfleet.Config) {
	t.Helper()
	dir := t.TempDir()
	release := filepath.Join(dir, "release")
	binary := filepath.Join(dir, "stand-in")
	write(t, binary, standIn)
	write(t, filepath.Join(release, "usr/bin/sluice-init"), "")
	cfg := devfleet.Config{Dir: filepath.Join(dir, "fleet"), Workers: 2, Binary: binary,
		Release: release, Runtime: "sandbox"}
	f, err := devfleet.Open(cfg.Dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Down(context.Background(), drivers, func(string) {}); err != nil &&
			!errs.Is(err, errs.NotFound) {
			t.Errorf("down: %v", err)
		}
		left(t, f)
	})
	return f, cfg
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// left fails the test if anything of the fleet is still on the machine.
func left(t *testing.T, f *devfleet.Fleet) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.Contains(l.Name, f.ID) {
			t.Errorf("link %s is left", l.Name)
		}
	}
	if spaces, _ := filepath.Glob("/run/netns/" + f.Netns("*")); len(spaces) > 0 {
		t.Errorf("network namespaces are left: %v", spaces)
	}
	if _, err := os.Stat(f.Dir); err == nil {
		t.Errorf("%s is left", f.Dir)
	}
}

func up(t *testing.T, f *devfleet.Fleet, cfg devfleet.Config) devfleet.State {
	t.Helper()
	// The stand-in makes no certificates.
	write(t, filepath.Join(f.AuthorityDir(), "ca.pem"), "")
	for i := 1; i <= cfg.Workers; i++ {
		write(t, filepath.Join(f.CertificateDir(f.WorkerName(i)), "identity.pem"), "")
	}
	if err := f.Up(t.Context(), cfg, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUpIsIdempotentAndRestartsWhatIsGone(t *testing.T) {
	f, cfg := newFleet(t)
	first := up(t, f, cfg)
	if again := up(t, f, cfg); again.Server != first.Server ||
		again.Workers[0].Process != first.Workers[0].Process {
		t.Fatal("a second up started something anew")
	}
	if err := f.Kill(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if first.Workers[0].Process.Alive() {
		t.Fatal("the worker survives the loss of its host")
	}
	third := up(t, f, cfg)
	if !third.Workers[0].Process.Alive() || third.Workers[1].Process != first.Workers[1].Process {
		t.Fatal("up didn't start exactly what was gone")
	}
	cfg.Workers = 3
	if err := f.Up(t.Context(), cfg, func(string) {}); !errs.Is(err, errs.Conflict) {
		t.Fatalf("another number of workers: %v", err)
	}
}

func TestHostsReachTheServerUntilCutOff(t *testing.T) {
	f, cfg := newFleet(t)
	up(t, f, cfg)
	listen, err := net.Listen("tcp", net.JoinHostPort(f.ServerAddress().String(), "7999"))
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	reach := func() bool {
		cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", f.Netns("w1"), "busybox",
			"nc", "-w", "1", f.ServerAddress().String(), "7999")
		cmd.WaitDelay = time.Second
		connected := make(chan bool, 1)
		go func() {
			listen.(*net.TCPListener).SetDeadline(time.Now().Add(1500 * time.Millisecond))
			c, err := listen.Accept()
			if err == nil {
				c.Close()
			}
			connected <- err == nil
		}()
		_ = cmd.Run()
		return <-connected
	}
	if !reach() {
		t.Fatal("a worker can't reach the server")
	}
	if err := f.Cut("w1"); err != nil {
		t.Fatal(err)
	}
	if reach() {
		t.Fatal("a worker that is cut off reaches the server")
	}
	if err := f.Heal("w1"); err != nil {
		t.Fatal(err)
	}
	if !reach() {
		t.Fatal("a healed worker can't reach the server")
	}
}

func TestDownAfterACrashOfUp(t *testing.T) {
	f, cfg := newFleet(t)
	s := up(t, f, cfg)
	// as if it had never been written
	if err := os.Remove(filepath.Join(f.Dir, "dev.json")); err != nil {
		t.Fatal(err)
	}
	if err := f.Down(t.Context(), drivers, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if s.Server.Alive() || s.Workers[0].Process.Alive() || s.Workers[1].Process.Alive() {
		t.Fatal("a daemon survives down")
	}
}

func TestUpRefusesBadInput(t *testing.T) {
	f, cfg := newFleet(t)
	cfg.Release = "/nonexistent"
	if err := f.Up(t.Context(), cfg, func(string) {}); !errs.Is(err, errs.NotFound) ||
		errs.RemedyOf(err) == "" {
		t.Fatalf("no release: %v", err)
	}
	cfg.Workers = 0
	if err := f.Up(t.Context(), cfg, func(string) {}); !errs.Is(err, errs.Invalid) {
		t.Fatalf("no workers: %v", err)
	}
	if err := f.Kill(t.Context(), "w1"); !errs.Is(err, errs.NotFound) {
		t.Fatalf("kill without a fleet: %v", err)
	}
	_ = os.RemoveAll(f.Dir)
}
