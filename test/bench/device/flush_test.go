//go:build bench

package device

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
)

// diskURL names a disk behind a proxy.
func diskURL(p *s3proxy.Proxy, s3 *versitygwtest.Server, name string) string {
	return poolURL(p, s3) + "/disks/" + name + query(p)
}

func poolURL(_ *s3proxy.Proxy,
	s3 *versitygwtest.Server) string {
	return "s3://" + s3.Bucket + "/pool"
}

func query(p *s3proxy.Proxy) string {
	return "?endpoint=" + url.QueryEscape(p.URL) + "&path_style=true&region=us-east-1"
}

// TestFlush measures a flush at the block device beside the store's own PUT by the same process,
// and beside it the fsync of file systems on the device, with what each asks of the device and of
// the store.
func TestFlush(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	for _, latency := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		t.Run(latency.String(), func(t *testing.T) { flushAt(t, s3, p, latency) })
	}
}

func flushAt(t *testing.T, s3 *versitygwtest.Server, p *s3proxy.Proxy, latency time.Duration) {
	p.SetLatency(0)
	s := startServer(t, diskURL(p, s3, "raw"+latency.String()))
	f := openDevice(t, s)
	p.SetLatency(latency)
	const n, part = 100, 10
	var small, large, flush []time.Duration
	for i := range n / part { // in turn: all see the same weather
		small = append(small, s.puts(4<<10, part)...)
		large = append(large, s.puts(64<<10, part)...)
		flush = append(flush, writeAndSync(t, f, part,
			func(k int) int64 { return int64(i*part+k) * 4096 })...)
	}
	_ = f.Close() // or the device can't be detached
	result(
		"flush of 4 KiB at the block device, store %v away: p50 %.2f ms; a PUT of 4 KiB %.2f ms, of 64 KiB %.2f ms; %+.2f ms over the first (aim +1)",
		latency, ms(p50(flush)), ms(p50(small)), ms(p50(large)), ms(p50(flush)-p50(small)))
	p.SetLatency(0)
	s.Close()
	for _, fs := range fileSystems {
		fsyncOn(t, s3, p, fs, latency)
	}
}

// TestFlushOfBounded measures a write and flush of 4 KiB at the device of a disk of mode bounded,
// whose journal is a file, beside the same write and fsync of a plain file in the same directory.
// The store is far away, and must not matter.
func TestFlushOfBounded(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	dir := t.TempDir()
	s := startServerIn(t, diskURL(p, s3, "bounded"), dir, pgBound)
	p.SetLatency(20 * time.Millisecond)
	defer p.SetLatency(0)
	device := openDevice(t, s)
	const n, part = 300, 10
	plain, err := os.OpenFile(filepath.Join(dir, "plain"),
		os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	// its blocks are there, as the journal's are
	writeAndSync(t, plain, n, func(k int) int64 { return int64(k) * 4096 })
	var local, flush []time.Duration
	for i := range n / part {
		at := func(k int) int64 { return int64(i*part+k) * 4096 }
		local = append(local, writeAndSync(t, plain, part, at)...)
		flush = append(flush, writeAndSync(t, device, part, at)...)
	}
	result(
		"flush of 4 KiB at the block device of a bounded disk, store 20 ms away: p50 %.2f ms, p99 %.2f ms; fsync of a plain file beside its journal %.2f ms, p99 %.2f ms; %.2f × (aim 2)",
		ms(p50(flush)), ms(p99(flush)), ms(p50(local)), ms(p99(local)),
		ms(p50(flush))/ms(p50(local)))
}

type fileSystem struct{ name, kind, mkfs, mkfsArgs, options string }

var fileSystems = []fileSystem{
	{"ext4", "ext4", "mkfs.ext4", "-q", ""},
	{"ext4 with fast_commit", "ext4", "mkfs.ext4", "-qOfast_commit", ""},
	{"ext4 with data=journal", "ext4", "mkfs.ext4", "-q", "data=journal"},
	{"ext4 with data=writeback,journal_async_commit", "ext4", "mkfs.ext4", "-q",
		"data=writeback,journal_async_commit"},
	{"xfs", "xfs", "mkfs.xfs", "-q", ""},
	{"btrfs", "btrfs", "mkfs.btrfs", "-q", ""},
}

// fsyncOn appends to a file and fsyncs it, on a file system on the device, and writes into a file
// that has its blocks.
func fsyncOn(t *testing.T, s3 *versitygwtest.Server, p *s3proxy.Proxy, fs fileSystem,
	latency time.Duration) {
	s := startServer(t, diskURL(p, s3, rand.Text()))
	run(t, fs.mkfs, fs.mkfsArgs, s.Device)
	dir, unmount := mount(t, s.Device, fs.kind, fs.options)
	const n = 40
	appendAndSync(t, dir+"/warm", 5)
	for _, how := range []string{"append", "overwrite"} {
		name := dir + "/" + how
		if how == "overwrite" {
			if err := os.WriteFile(name, make([]byte, n*4096), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "sync", "-f", name)
		}
		p.SetLatency(latency)
		before, asked := s.stats(), p.Asked()
		var took []time.Duration
		if how == "append" {
			took = appendAndSync(t, name, n)
		} else {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			took = writeAndSync(t, f, n, func(i int) int64 { return int64(i) * 4096 })
			f.Close()
		}
		after, did := s.stats(), p.Asked().Sub(asked)
		p.SetLatency(0)
		result(
			"fsync on %s after an %s of 4 KiB, store %v away: p50 %.2f ms; per fsync %s device flushes, %s log objects, %s PUTs of all kinds, %.1f KB to the store",
			fs.name, how, latency, ms(p50(took)), per(after.Flushes-before.Flushes, n),
			per(after.LogObjects-before.LogObjects, n),
			per(uint64(did.PUTs), n), float64(did.Written)/n/1e3)
	}
	unmount()
	s.Close()
}

func per(count uint64, n int) string { return fmt.Sprintf("%.2f", float64(count)/float64(n)) }
