//go:build bench

package device

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
)

const (
	treeFiles = 20_000
	treeDirs  = 200
	seqBytes  = 64 << 20
)

// contender is a block device over the S3 server, ours or the peer's, that can be attached again
// without any cache.
type contender struct {
	what   string
	attach func() (dev string, detach func())
}

// outcome is what one workload took, and what it asked of the store.
type outcome struct {
	took  time.Duration
	asked s3proxy.Asked
}

// TestAgainstS3backer runs the same workloads on ext4 on our disk and on s3backer's with an honest
// flush: its cache writes through (--blockCacheSync), so that a write that was acknowledged is in
// the store, as with us after a flush. Both use the same server through the same proxy. s3backer
// has blocks of 4 KiB, its own default, and of 64 KiB; what it does by default for stores that were
// consistent only in the end (it waits half a second before it writes a block again, and for room
// among the checksums of the last ten seconds) is off.
func TestAgainstS3backer(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	ours := workloads(t, p, contender{"sluice", func() (string, func()) {
		s := startServer(t, diskURL(p, s3, "us"))
		return s.Device, s.Close
	}})
	for _, block := range []string{"4k", "64k"} {
		theirs := workloads(t, p, contender{"s3backer with blocks of " + block,
			func() (string, func()) {
				return startS3backer(t, p, s3, block)
			}})
		for _, what := range []string{randomWrites, parallelWrites, seqWrite, unpack, coldRead} {
			a, b := ours[what], theirs[what]
			aim := 5
			if what == coldRead {
				aim = 2
			}
			result(
				"%s: sluice %.2f s (%v); s3backer with blocks of %s %.2f s (%v); %.1f × (aim %d)",
				what, a.took.Seconds(), a.asked, block,
				b.took.Seconds(), b.asked, float64(b.took)/float64(a.took), aim)
		}
	}
}

const (
	randomWrites   = "300 random writes of 4 KiB, each with an fsync"
	parallelWrites = "the same by 16 writers at once, 100 each"
	seqWrite       = "a sequential write of 64 MiB and an fsync"
	unpack         = "unpacking a tree of 20,000 small files and a syncfs"
	coldRead       = "reading that tree with a cold cache"
)

// workloads runs all workloads on a new file system.
func workloads(t *testing.T, p *s3proxy.Proxy, c contender) map[string]outcome {
	t.Helper()
	dev, detach := c.attach()
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-J",
		"size=16", "-N", "40000", dev)
	dir, unmount := mount(t, dev, "ext4", "noinit_itable")
	out := make(map[string]outcome)
	timed := func(what string, do func() error) {
		start, before := time.Now(), p.Asked()
		if err := do(); err != nil {
			t.Fatalf("%s: %s: %v", c.what, what, err)
		}
		out[what] = outcome{time.Since(start), p.Asked().Sub(before)}
		fmt.Printf("%s: %s: %.2f s, %v\n", c.what, what, out[what].took.Seconds(), out[what].asked)
	}
	prepared := filepath.Join(dir, "random")
	if err := writeSequentially(prepared, 16<<20); err != nil {
		t.Fatal(err)
	}
	timed(randomWrites, func() error { return writeRandomly(prepared, 300, 1) })
	timed(parallelWrites, func() error {
		var writers errgroup.Group
		for seed := range uint64(16) {
			writers.Go(func() error { return writeRandomly(prepared, 100, seed) })
		}
		return writers.Wait()
	})
	timed(seqWrite, func() error {
		return writeSequentially(filepath.Join(dir, "sequential"),
			seqBytes)
	})
	timed(unpack, func() error { return writeTree(filepath.Join(dir, "tree")) })
	unmount()
	detach()
	dev, detach = c.attach()
	dir, unmount = mount(t, dev, "ext4", "noinit_itable")
	timed(coldRead, func() error { return readTree(filepath.Join(dir, "tree")) })
	unmount()
	detach()
	return out
}

// writeRandomly writes blocks of 4 KiB all over a file of 16 MiB, n times, and fsyncs it after
// each.
func writeRandomly(name string, n int, seed uint64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	rng := mrand.New(mrand.NewPCG(seed, 1))
	buf := make([]byte, 4096)
	for range n {
		_, _ = rand.Read(buf)
		_, err = f.WriteAt(buf, rng.Int64N(16<<20/4096)*4096)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// writeSequentially writes content that doesn't compress, and fsyncs it.
func writeSequentially(name string, size int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for range size / len(buf) {
		_, _ = rand.Read(buf)
		if _, err := f.Write(buf); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// writeTree writes the tree's files, of 1 to 4 KiB, and then all of it to the device.
func writeTree(dir string) error {
	rng := mrand.New(mrand.NewPCG(2, 2))
	buf := make([]byte, 4096)
	for i := range treeFiles {
		d := filepath.Join(dir, fmt.Sprint(i*treeDirs/treeFiles))
		if i%(treeFiles/treeDirs) == 0 {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		_, _ = rand.Read(buf)
		if err := os.WriteFile(filepath.Join(d, fmt.Sprint(i)), buf[:1024+rng.IntN(3072)],
			0o600); err != nil {
			return err
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// readTree reads every file, and sees that they are all there.
func readTree(dir string) error {
	files := 0
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && len(b) < 1024 {
			err = fmt.Errorf("%s has %d bytes", name, len(b))
		}
		files++
		return err
	})
	if err == nil && files != treeFiles {
		err = fmt.Errorf("%d files of %d", files, treeFiles)
	}
	return err
}

// startS3backer attaches s3backer's disk with an empty cache.
func startS3backer(t *testing.T, p *s3proxy.Proxy, s3 *versitygwtest.Server,
	block string) (dev string, detach func()) {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(versitygwtest.AccessKey+":"+versitygwtest.SecretKey+"\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("s3backer", "-f", "--accessFile="+key, "--baseURL="+p.URL+"/",
		"--blockSize="+block,
		fmt.Sprintf("--size=%d", deviceSize), "--prefix=s3b"+block+"/", "--force", "--listBlocks",
		"--blockCacheSync", "--blockCacheWriteDelay=0",
		"--blockCacheSize=20000", "--md5CacheSize=0", "--md5CacheTime=0", "--minWriteDelay=0",
		"--quiet", s3.Bucket, mnt)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(mnt, "file")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(file); err == nil && info.Size() == deviceSize {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("s3backer does not serve")
		}
	}
	dev, release := loop(t, file)
	ended := false
	detach = func() {
		if ended {
			return
		}
		ended = true
		release()
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount s3backer: %v", err)
			_ = unix.Unmount(mnt, unix.MNT_DETACH)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("s3backer: %v", err)
		}
	}
	t.Cleanup(detach)
	return dev, detach
}
