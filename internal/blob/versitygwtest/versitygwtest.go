// Package versitygwtest runs a real S3 server for a test: versitygw over a temporary directory, on
// a free port of the loopback interface, which ends with the test. It is found in .cache/bin of the
// repository, or installed there by scripts/install-versitygw.sh.
package versitygwtest

import (
	"crypto/rand"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/x/servertest"
)

// The server's credentials.
const (
	AccessKey = "sluice-test"
	SecretKey = "sluice-test-secret"
)

const startWait = 20 * time.Second

// Server is a running S3 server with one bucket.
type Server struct {
	Endpoint string // http://127.0.0.1:port
	Bucket   string
	Dir      string // where it keeps its objects

	binary, addr string
	flags        []string // of the file system that it keeps its objects in
	accounts     string   // directory of the accounts that it has beside its own; "": it can't
	program      *servertest.Server
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
	s.Bucket, s.binary = "bucket", servertest.Install(t, "install-versitygw.sh")
	t.Cleanup(s.Kill)
	// The bucket is a directory; making it here spares an API call that is the server's own.
	if err := os.Mkdir(filepath.Join(s.Dir, s.Bucket), 0o750); err != nil {
		t.Fatal(err)
	}
	servertest.OnFreePort(t, s.start)
	return s
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
func (s *Server) Kill() { s.program.Kill() }

// Pause makes the server hang: it takes connections, and answers nothing. Resume lets it go on.
func (s *Server) Pause(t testing.TB) { s.program.Signal(t, syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) { s.program.Signal(t, syscall.SIGCONT) }

func (s *Server) start(addr string) (err error) {
	args := []string{"--quiet", "--port", addr, "--access", AccessKey, "--secret", SecretKey}
	if s.accounts != "" {
		args = append(args, "--iam-dir", s.accounts)
	}
	args = append(append(args, "posix"), s.flags...)
	cmd := exec.Command(s.binary, append(args, s.Dir)...)
	s.program, err = servertest.Start(cmd, startWait, func() error {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	s.addr, s.Endpoint = addr, "http://"+addr
	return err
}

// Prefix returns a prefix that no other test uses.
func Prefix() string { return strings.ToLower(rand.Text()) }
