//go:build bench

package device

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
)

// TestFileSystems writes and fsyncs on each file system, kills the process that serves the disk by
// SIGKILL amid that, attaches the disk again, lets the file system recover, and asks its own
// checker. Every file that was fsynced must be there with its content. Then fstrim must give back
// what was removed.
func TestFileSystems(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	for _, fs := range []struct {
		name, mkfs string
		check      [][]string // the device is appended to each
	}{
		{"ext4", "mkfs.ext4", [][]string{{"e2fsck", "-f", "-n"}}},
		{"xfs", "mkfs.xfs", [][]string{{"xfs_repair", "-n"}}},
		{"btrfs", "mkfs.btrfs", [][]string{{"btrfs", "check", "--check-data-csum"}}},
	} {
		t.Run(fs.name, func(t *testing.T) {
			url := diskURL(p, s3, fs.name)
			s := startServer(t, url)
			run(t, fs.mkfs, "-q", s.Device)
			acked := writeUntilKilled(t, s, fs.name)
			if len(acked) < 10 {
				t.Fatalf("only %d files were fsynced", len(acked))
			}
			s = startServer(t, url)
			dir, unmount := mount(t, s.Device, fs.name, "") // replays the journal
			for name, want := range acked {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil || sha256.Sum256(b) != want {
					t.Errorf("%s was fsynced, and is not there with its content: %v", name, err)
				}
			}
			unmount()
			for _, c := range fs.check {
				run(t, c[0], append(c[1:], s.Device)...)
			}
			freed := trimmed(t, p, s3, s, fs.name)
			s = startServer(t, url)
			run(t, fs.check[0][0], append(fs.check[0][1:], s.Device)...)
			result(
				"%s: %d fsynced files there after a SIGKILL of the disk's process, its checker finds nothing; fstrim freed %.1f MB of 64", fs.name,
				len(acked), float64(freed)/1e6)
			if freed < 56<<20 {
				t.Errorf("fstrim freed %d bytes", freed)
			}
			s.Close()
		})
	}
}

// writeUntilKilled writes and fsyncs files until the serving process, killed amid that, is gone,
// and returns the hashes of those whose fsync succeeded.
func writeUntilKilled(t *testing.T, s *server, fs string) map[string][sha256.Size]byte {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(s.Device, dir, fs, unix.MS_NOATIME, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // the device is gone
	kill := time.AfterFunc(2*time.Second, s.Kill)
	defer kill.Stop()
	acked := make(map[string][sha256.Size]byte)
	for i := range 100_000 {
		b := make([]byte, 20_000)
		_, _ = rand.Read(b)
		name := fmt.Sprintf("f%06d", i)
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			break
		}
		_, err = f.Write(b)
		if err == nil {
			err = f.Sync()
		}
		_ = f.Close()
		if err != nil {
			break
		}
		acked[name] = sha256.Sum256(b)
	}
	s.Reap()
	return acked
}

// trimmed returns how much less the disk's map holds after a file of 64 MiB was removed and the
// file system trimmed. It closes the disk.
func trimmed(t *testing.T, p *s3proxy.Proxy, s3 *versitygwtest.Server, s *server, fs string) int64 {
	t.Helper()
	dir, unmount := mount(t, s.Device, fs, "")
	if err := writeSequentially(filepath.Join(dir, "large"), 64<<20); err != nil {
		t.Fatal(err)
	}
	unmount()
	s.Close()
	full := mappedBytes(t, p, s3, fs)
	s = startServer(t, diskURL(p, s3, fs))
	dir, unmount = mount(t, s.Device, fs, "")
	if err := os.Remove(filepath.Join(dir, "large")); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", "-f", dir)
	run(t, "fstrim", dir)
	unmount()
	s.Close()
	return full - mappedBytes(t, p, s3, fs)
}

// mappedBytes returns what the map of a closed disk holds.
func mappedBytes(t *testing.T, p *s3proxy.Proxy, s3 *versitygwtest.Server, name string) int64 {
	t.Helper()
	store, err := blobs.Open(t.Context(), poolURL(p, s3)+query(p))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	info, err := disk.Info(t.Context(), store, "disks/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return info.MappedBytes
}

// TestFioVerify lets fio write with every write acknowledged as durable, and kill the process that
// serves the disk by its own trigger, which keeps what was acknowledged. After the disk is attached
// again, fio verifies that.
func TestFioVerify(t *testing.T) {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	p := s3proxy.Start(t, s3.Endpoint)
	url := diskURL(p, s3, "fio")
	s := startServer(t, url)
	state := t.TempDir()
	fio := func(dev string, more ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "fio",
			append([]string{"--name=v", "--filename=" + dev, "--direct=1", "--sync=1",
				"--rw=randwrite", "--bs=4k", "--size=64m", "--ioengine=libaio", "--iodepth=8",
				"--verify=crc32c", "--randseed=7"}, more...)...)
		cmd.Dir = state
		return cmd.CombinedOutput()
	}
	out, err := fio(s.Device, "--do_verify=0", "--verify_state_save=1", "--trigger-timeout=4",
		fmt.Sprintf("--trigger=kill -9 %d", s.PID()))
	s.Reap()
	if _, serr := os.Stat(filepath.Join(state, "local-v-0-verify.state")); serr != nil {
		t.Fatalf("fio kept no state: %v: %v: %s", serr, err, out)
	}
	s = startServer(t, url)
	if out, err = fio(s.Device, "--verify_only", "--verify_state_load=1"); err != nil {
		t.Fatalf("fio --verify after a SIGKILL: %v: %s", err, out)
	}
	result("fio: all that was acknowledged before a SIGKILL of the disk's process verifies: %s",
		lineWith(string(out), "IOPS"))
	s.Close()
}
