//go:build bench

package device

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
)

// TestWriteAmplification does to ext4 what a root disk sees: a tree is unpacked, packages are
// upgraded, logs grow. It compares the bytes sent to the store with those that the file system
// wrote to the device. Content doesn't compress; the slack of last blocks and the file system's own
// metadata do.
func TestWriteAmplification(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	s := startServer(t, diskURL(p, s3, "root"))
	run(t, "mkfs.ext4", "-q", "-N", "40000", s.Device)
	dir, unmount := mount(t, s.Device, "ext4", "noinit_itable")
	first := s.stats()
	before, asked := first, p.Asked()
	amplification := func(what string) {
		now, did := s.stats(), p.Asked().Sub(asked)
		device := now.WriteBytes - before.WriteBytes
		result(
			"write amplification, %s: %.2f (%.1f MB on the wire to the store for %.1f MB written to the device, %d PUT, %d log objects, %d map checkpoints)",
			what, float64(did.Written)/float64(device), float64(did.Written)/1e6,
			float64(device)/1e6, did.PUTs,
			now.LogObjects-before.LogObjects, now.MapWrites-before.MapWrites)
		before, asked = now, p.Asked()
	}
	start := asked
	for _, step := range []struct {
		what string
		do   func(dir string) error
	}{
		{"unpacking a tree of 20,000 files",
			func(dir string) error { return writeTree(filepath.Join(dir, "tree")) }},
		{"upgrading 1,500 of them, with an fsync every 10", upgrade},
		{"500 lines appended to logs, every tenth with an fsync", appendLogs},
	} {
		if err := step.do(dir); err != nil {
			t.Fatal(err)
		}
		run(t, "sync", "-f", dir)
		amplification(step.what)
	}
	unmount()
	before, asked = first, start
	amplification("all of it (aim 1.4)")
}

// upgrade replaces files as package managers do: a new one beside the old, then a rename.
func upgrade(dir string) error {
	const files, step = 1500, 10
	buf := make([]byte, 4096)
	for i := range files {
		n := i * (treeFiles / files)
		name := filepath.Join(dir, "tree", fmt.Sprint(n*treeDirs/treeFiles), fmt.Sprint(n))
		_, _ = rand.Read(buf)
		f, err := os.Create(name + ".new")
		if err != nil {
			return err
		}
		_, err = f.Write(buf[:2000])
		if i%step == 0 {
			err = errors.Join(err, f.Sync())
		}
		if err = errors.Join(err, f.Close(), os.Rename(name+".new", name)); err != nil {
			return err
		}
	}
	return nil
}

// appendLogs writes lines to five logs in turn.
func appendLogs(dir string) error {
	const lines, logs, step = 500, 5, 10
	line := make([]byte, 160)
	for i := range lines {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("log", i%logs)),
			os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, _ = rand.Read(line)
		_, err = f.Write(line)
		if i%step == 0 {
			err = errors.Join(err, unix.Fdatasync(int(f.Fd())))
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
