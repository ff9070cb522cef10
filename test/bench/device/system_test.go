//go:build bench

package device

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// mount mounts a device until the test ends or the function that it returns is called.
func mount(t *testing.T, dev, fs, options string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount(dev, dir, fs, unix.MS_NOATIME, options); err != nil {
		t.Fatalf("mount %s as %s with %q: %v", dev, fs, options, err)
	}
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// appendAndSync appends 4 KiB that don't compress to a file and fsyncs it, n times.
func appendAndSync(t *testing.T, name string, n int) []time.Duration {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return writeAndSync(t, f, n, func(int) int64 { return -1 })
}

// writeAndSync writes 4 KiB n times, at what at says, or where the file is, and fsyncs each time.
func writeAndSync(t *testing.T, f *os.File, n int, at func(i int) int64) []time.Duration {
	t.Helper()
	buf := alignedBlock()
	var took []time.Duration
	for i := range n {
		_, _ = rand.Read(buf)
		start := time.Now()
		var err error
		if off := at(i); off < 0 {
			_, err = f.Write(buf)
		} else {
			_, err = f.WriteAt(buf, off)
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	return took
}

// alignedBlock returns 4 KiB that direct I/O takes.
func alignedBlock() []byte {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return b
}

func p50(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func p99(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)*99/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func result(format string, args ...any) { fmt.Printf("RESULT "+format+"\n", args...) }

// loop returns a loop device over a file until the test ends or the function is called.
func loop(t *testing.T, file string) (dev string, detach func()) {
	t.Helper()
	dev = run(t, "losetup", "-f", "--show", "--direct-io=on", "--sector-size=4096", file)
	attached := true
	detach = func() {
		if !attached {
			return
		}
		attached = false
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v: %s", dev, err, out)
		}
	}
	t.Cleanup(detach)
	return dev, detach
}

// lineWith returns the first line of text that has a word.
func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
