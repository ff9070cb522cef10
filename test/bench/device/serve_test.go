//go:build bench

package device

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A process that serves a device must not wait for it, so the test binary plays the serving process too: it serves
// the disk of the URL in serveEnv, made if there is none, with a cache in the directory dirEnv, until stdin ends. It
// answers each line on stdin with one of JSON: "stats" with the disk's counters, "puts SIZE N" with how long each of N
// PUTs of its own took, so that what a PUT costs is measured where the device's PUTs are made.
const (
	serveEnv = "SLUICE_BENCH_SERVE"
	dirEnv   = "SLUICE_BENCH_DIR"
	boundEnv = "SLUICE_BENCH_BOUND" // makes the disk one of mode bounded, with a journal in dirEnv
	logEnv   = "SLUICE_BENCH_LOG"   // the URL of a second store, in which it makes the disk's log

	deviceSize  = 2 << 30
	cacheSize   = 2 << 30
	journalSize = 256 << 20
)

func TestMain(m *testing.M) {
	if url := os.Getenv(serveEnv); url != "" {
		if err := serve(context.Background(), url, os.Getenv(dirEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(ctx context.Context, url, dir string) error {
	store, path, err := openStore(ctx, url)
	if err != nil {
		return err
	}
	d, err := open(ctx, store, path, dir)
	if err != nil {
		return err
	}
	front, err := frontend.Attach(ctx, d, frontend.Config{Name: "bench", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	fmt.Println(front.BlockDevice())
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var size, n int
		var answer any = d.Stats()
		if _, err := fmt.Sscanf(lines.Text(), "puts %d %d", &size, &n); err == nil {
			if answer, err = putTimes(ctx, store, size, n); err != nil {
				return err
			}
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	if err := front.Close(ctx); err != nil {
		return err
	}
	return d.Close(ctx)
}

func openStore(ctx context.Context, url string) (blob.Store, string, error) {
	pool, path, err := blobs.SplitDiskURL(url)
	if err != nil {
		return nil, "", err
	}
	store, err := blobs.Open(ctx, pool)
	return store, path, err
}

// putTimes writes n objects to the store as the engine does, by conditional PUTs, one after the other.
func putTimes(ctx context.Context, store blob.Store, size, n int) ([]time.Duration, error) {
	body := make([]byte, size)
	var took []time.Duration
	for range n {
		_, _ = rand.Read(body)
		key := "puts/" + rand.Text()
		start := time.Now()
		if _, err := store.PutIfAbsent(ctx, key, body); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

func open(ctx context.Context, store blob.Store, path, dir string) (*disk.Disk, error) {
	bound := time.Duration(0)
	if s := os.Getenv(boundEnv); s != "" {
		var err error
		if bound, err = time.ParseDuration(s); err != nil {
			return nil, err
		}
	}
	head, err := disk.ReadHead(ctx, store, path)
	if errs.Is(err, errs.NotFound) {
		head, err = disk.Create(ctx, store, path, disk.CreateOptions{Size: deviceSize, Bound: bound,
			LogURL: os.Getenv(logEnv), OpenLog: blobs.Open})
	}
	if err != nil {
		return nil, err
	}
	var j *journal.Journal
	if bound > 0 {
		if j, err = journal.Open(filepath.Join(dir, "journal"), journal.Options{Size: journalSize}); err != nil {
			return nil, err
		}
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), cacheSize)
	if err != nil {
		return nil, err
	}
	return disk.Attach(ctx, store, path, disk.AttachOptions{Generation: head.Generation + 1, Holder: "bench", Cache: c, Journal: j,
		OpenLog: blobs.Open})
}

// server is a process that serves a disk.
type server struct {
	t     *testing.T
	dev   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	ended bool
}

// startServer serves the disk of a URL with a new cache until the test ends.
func startServer(t *testing.T, url string) *server {
	t.Helper()
	return startServerIn(t, url, t.TempDir(), 0)
}

// startServerIn serves the disk of a URL, with cache and journal in dir. With a bound, a disk that it makes is of mode
// bounded.
func startServerIn(t *testing.T, url, dir string, bound time.Duration) *server {
	t.Helper()
	var env []string
	if bound > 0 {
		env = append(env, boundEnv+"="+bound.String())
	}
	return startServerWith(t, url, dir, env...)
}

// startServerWith serves the disk of a URL with more in its environment.
func startServerWith(t *testing.T, url, dir string, env ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(append(os.Environ(), serveEnv+"="+url, dirEnv+"="+dir), env...)
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	s.dev = strings.TrimSpace(s.line())
	return s
}

func (s *server) line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("the serving process: %v", err)
	}
	return line
}

// stats returns the disk's counters.
func (s *server) stats() (x disk.Stats) {
	s.t.Helper()
	s.ask("stats", &x)
	return x
}

// puts has the serving process write n objects to the store, and returns how long each took.
func (s *server) puts(size, n int) (took []time.Duration) {
	s.t.Helper()
	s.ask(fmt.Sprintf("puts %d %d", size, n), &took)
	return took
}

func (s *server) ask(line string, answer any) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.stdin, line); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(s.line()), answer); err != nil {
		s.t.Fatal(err)
	}
}

// close detaches the device and closes the disk.
func (s *server) close() {
	if s.ended {
		return
	}
	s.ended = true
	s.stdin.Close()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the serving process: %v", err)
	}
}

// kill ends the serving process as a crash does.
func (s *server) kill() { _ = s.cmd.Process.Kill() }

// reap waits for a process that was killed.
func (s *server) reap() {
	if s.ended {
		return
	}
	s.ended = true
	s.kill()
	_ = s.cmd.Wait() // says that it was killed
	s.stdin.Close()
}
