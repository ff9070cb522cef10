// Package versitygwtest runs a real S3 server for a test: versitygw over a temporary directory, on
// a free port of the loopback interface, which ends with the test. It is found in .cache/bin of the
// repository, or installed there by scripts/install-versitygw.sh.
package versitygwtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
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

// The server's credentials.
const (
	AccessKey = "sluice-test"
	SecretKey = "sluice-test-secret"
)

const (
	startWait   = 20 * time.Second
	installWait = 15 * time.Minute
)

// Server is a running S3 server with one bucket.
type Server struct {
	Endpoint string // http://127.0.0.1:port
	Bucket   string
	Dir      string // where it keeps its objects

	binary, addr string
	flags        []string // of the file system that it keeps its objects in
	accounts     string   // directory of the accounts that it has beside its own; "": it can't
	process      *os.Process
	ended        chan error
}

// URL returns the store URL of a prefix of the bucket. Credentials come from the environment; see
// Setenv.
func (s *Server) URL(prefix string) string {
	return "s3://" + s.Bucket + "/" + prefix + "?endpoint=" + url.QueryEscape(s.Endpoint) +
		"&path_style=true&region=us-east-1"
}

// Setenv sets the server's credentials in the test's environment.
func (s *Server) Setenv(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn starts a server that keeps its objects in dir.
func StartIn(t testing.TB, dir string) *Server {
	t.Helper()
	return start(t, dir)
}

// StartVersioned starts a server whose buckets can have versions. None has, to begin with.
func StartVersioned(t testing.TB) *Server {
	t.Helper()
	return start(t, t.TempDir(), "--versioning-dir", t.TempDir())
}

// StartWithAccounts starts a server that can have more accounts than its own.
func StartWithAccounts(t testing.TB) *Server {
	t.Helper()
	return begin(t, &Server{Dir: t.TempDir(), accounts: t.TempDir()})
}

// AddAccount makes an account that may do everything, or fails the test.
func (s *Server) AddAccount(t testing.TB, access, secret string) {
	t.Helper()
	s.admin(t, "create-user", "--access", access, "--secret", secret, "--role", "admin")
}

// DeleteAccount takes an account away, or fails the test.
func (s *Server) DeleteAccount(t testing.TB, access string) {
	t.Helper()
	s.admin(t, "delete-user", "--access", access)
}

func (s *Server) admin(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command(s.binary, append([]string{"admin", "--access", AccessKey, "--secret",
		SecretKey, "--endpoint-url", s.Endpoint}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}

func start(t testing.TB, dir string, flags ...string) *Server {
	t.Helper()
	return begin(t, &Server{Dir: dir, flags: flags})
}

func begin(t testing.TB, s *Server) *Server {
	t.Helper()
	s.Bucket, s.binary = "bucket", install(t)
	t.Cleanup(s.Kill)
	// The bucket is a directory; making it here spares an API call that is the server's own.
	if err := os.Mkdir(filepath.Join(s.Dir, s.Bucket), 0o750); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		// The port is free now, and may not be in a moment; then the server ends, and another port
		// is tried.
		if err := s.start(freePort(t)); err == nil {
			return s
		} else {
			t.Log(err)
		}
	}
	t.Fatal("versitygw did not start on any of 5 ports")
	return nil
}

// Restart starts the server again where it was before Kill: with the same objects, on the same
// port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(s.addr); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the server at once. It may be called any number of times.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Kill()
	<-s.ended
	s.process = nil
}

// Pause makes the server hang: it takes connections, and answers nothing. Resume lets it go on.
func (s *Server) Pause(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) start(addr string) error {
	args := []string{"--quiet", "--port", addr, "--access", AccessKey, "--secret", SecretKey}
	if s.accounts != "" {
		args = append(args, "--iam-dir", s.accounts)
	}
	args = append(append(args, "posix"), s.flags...)
	cmd := exec.Command(s.binary, append(args, s.Dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	var waiter errgroup.Group
	waiter.Go(func() error {
		ended <- cmd.Wait()
		return nil
	})
	for deadline := time.Now().Add(startWait); ; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("versitygw on %s ended: %w\n%s", addr, err, out.String())
		default:
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-ended
			return fmt.Errorf("versitygw on %s did not listen within %s\n%s", addr,
				startWait, out.String())
		}
	}
	s.process, s.ended, s.addr, s.Endpoint = cmd.Process, ended, addr, "http://"+addr
	return nil
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// install returns the path of the server's binary.
func install(t testing.TB) string {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no source path")
	}
	script := filepath.Join(filepath.Dir(here), "..", "..", "..", "scripts", "install-versitygw.sh")
	ctx, cancel := context.WithTimeout(t.Context(), installWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}

// Prefix returns a prefix that no other test uses.
func Prefix() string { return strings.ToLower(rand.Text()) }
