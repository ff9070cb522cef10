//go:build bench

package device

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/bench/serving"
)

// The process that serves the disk of a URL makes it if there is none, has a cache in its
// directory, and answers "stats" with the disk's counters, and "puts SIZE N" with how long each of
// N PUTs of its own took, so that what a PUT costs is measured where the device's PUTs are made.
const (
	// makes the disk one of mode bounded, with a journal in its directory
	boundEnv = "SLUICE_BENCH_BOUND"
	logEnv   = "SLUICE_BENCH_LOG" // the URL of a second store, in which it makes the disk's log

	deviceSize  = 2 << 30
	cacheSize   = 2 << 30
	journalSize = 256 << 20
)

func TestMain(m *testing.M) { serving.Main(m, serve) }

func serve(ctx context.Context, url, dir string) error {
	store, path, err := openStore(ctx, url)
	if err != nil {
		return err
	}
	d, err := open(ctx, store, path, dir)
	if err != nil {
		return err
	}
	if err := serving.Show(ctx, d, "bench", func(question string) (any, error) {
		var size, n int
		if _, err := fmt.Sscanf(question, "puts %d %d", &size, &n); err == nil {
			return putTimes(ctx, store, size, n)
		}
		return d.Stats(), nil
	}); err != nil {
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

// putTimes writes n objects to the store as the engine does, by conditional PUTs, one after the
// other.
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
		if j, err = journal.Open(filepath.Join(dir, "journal"),
			journal.Options{Size: journalSize}); err != nil {
			return nil, err
		}
	}
	c, err := cache.Open(filepath.Join(dir, "cache"), cacheSize)
	if err != nil {
		return nil, err
	}
	return disk.Attach(ctx, store, path, disk.AttachOptions{Generation: head.Generation + 1,
		Holder: "bench", Cache: c, Journal: j,
		OpenLog: blobs.Open})
}

// server is a process that serves a disk.
type server struct{ *serving.Process }

// startServer serves the disk of a URL with a new cache until the test ends.
func startServer(t *testing.T, url string) *server {
	t.Helper()
	return startServerIn(t, url, t.TempDir(), 0)
}

// startServerIn serves the disk of a URL, with cache and journal in dir. With a bound, a disk that
// it makes is of mode bounded.
func startServerIn(t *testing.T, url, dir string, bound time.Duration) *server {
	t.Helper()
	var env []string
	if bound > 0 {
		env = append(env, boundEnv+"="+bound.String())
	}
	return &server{serving.Start(t, url, dir, env...)}
}

// stats returns the disk's counters.
func (s *server) stats() (x disk.Stats) {
	s.Ask("stats", &x)
	return x
}

// puts has the serving process write n objects to the store, and returns how long each took.
func (s *server) puts(size, n int) (took []time.Duration) {
	s.Ask(fmt.Sprintf("puts %d %d", size, n), &took)
	return took
}
