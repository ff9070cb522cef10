package frontend_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
)

// The test binary plays the serving process too.
const (
	serveEnv = "SLUICE_TEST_FRONTEND_SERVE"
	stuckEnv = "SLUICE_TEST_FRONTEND_STUCK"
)

func TestMain(m *testing.M) {
	if isGuest() {
		runAsGuest()
	}
	if path := os.Getenv(serveEnv); path != "" {
		if err := serve(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve attaches the file at path, says where on stdout, and closes when stdin ends.
func serve(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	dev := &fileDevice{f: f}
	dev.size.Store(testSize)
	front, err := frontend.Show(context.Background(), dev, kindUnderTest(), frontend.Config{
		Name:   "killed",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	if os.Getenv(stuckEnv) != "" {
		dev.stall.Store(true)
		return waitForOwnDevice(front.BlockDevice())
	}
	fmt.Println(front.BlockDevice())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return front.Close(context.Background())
}

// waitForOwnDevice says which thread it is, and does what the package comment warns of.
func waitForOwnDevice(blockdev string) error {
	fd, err := unix.Open(blockdev, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, make([]byte, 4096), 0); err != nil {
		return err
	}
	runtime.LockOSThread()
	fmt.Println(unix.Gettid())
	return unix.Fsync(fd)
}

type server struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	blockdev string
}

func startServer(t *testing.T, path string) *server {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+path)
	cmd.Stderr = io.Discard
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: cmd, stdin: stdin}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			s.kill(t)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.blockdev = strings.TrimSpace(line)
	return s
}

func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = s.cmd.Wait() // killed, as we know
}

// TestKilledServer kills the serving process while records are written and fsynced, many times over
// on one disk: everything acknowledged is there afterwards, the file system is whole, and nothing
// is left behind.
func TestKilledServer(t *testing.T) {
	path := t.TempDir() + "/disk"
	newFileDevice(t, path, testSize)
	mkfs(t, path)
	acked := 0
	for round := range 6 {
		s := startServer(t, path)
		dir := filepath.Join(t.TempDir(), "mnt")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := frontend.MountExt4(t.Context(), s.blockdev, dir, unix.MS_NOATIME); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		checkRecords(t, dir, acked)
		var g errgroup.Group
		started := make(chan struct{})
		g.Go(func() error {
			acked = writeRecords(dir, acked, started)
			return nil
		})
		<-started
		// so that the kill hits another moment each time
		time.Sleep(time.Duration(round*7) * time.Millisecond)
		s.kill(t)
		if kindUnderTest() == frontend.NBD {
			// What waits for the kernel's client fails when somebody ends the device, not by
			// itself.
			if err := frontend.EndOrphans(); err != nil {
				t.Fatal(err)
			}
		}
		_ = g.Wait()
		if n, err := frontend.Sweep(filepath.Dir(dir)); n != 1 || err != nil {
			t.Fatalf("swept %d mounts: %v", n, err)
		}
		eventually(t, "device detached", func() bool { return backingOf(s.blockdev) == "" })
		if err := frontend.Fsck(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if acked == 0 {
		t.Fatal("no record was ever acknowledged")
	}
	t.Logf("%d records acknowledged over 6 kills", acked)
}

// writeRecords writes and fsyncs numbered files until that fails, and returns the last that was
// acknowledged.
func writeRecords(dir string, from int, started chan<- struct{}) int {
	for n := from + 1; ; n++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			return n - 1
		}
		_, err = f.Write(record(n))
		if err == nil {
			err = f.Sync()
		}
		f.Close()
		if err != nil {
			return n - 1
		}
		if n == from+3 {
			close(started)
		}
	}
}

func record(n int) []byte { return []byte(strings.Repeat(fmt.Sprintf("record %d\n", n), 1+n%700)) }

func checkRecords(t *testing.T, dir string, acked int) {
	t.Helper()
	for n := 1; n <= acked; n++ {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			t.Fatalf("acknowledged record: %v", err)
		}
		if string(got) != string(record(n)) {
			t.Fatalf("record %d was acknowledged, and is different", n)
		}
	}
}

func TestAbort(t *testing.T) {
	fuseOnly(t)
	path := t.TempDir() + "/disk"
	newFileDevice(t, path, testSize)
	s := startServer(t, path)
	n, err := fuseabort.Process(s.cmd.Process.Pid)
	if n != 1 || err != nil {
		t.Fatalf("aborted %d connections: %v", n, err)
	}
	fd, err := unix.Open(s.blockdev, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err == nil {
		defer unix.Close(fd)
		if _, err := unix.Pread(fd, make([]byte, 4096), 0); err == nil {
			t.Error("an aborted device still answers")
		}
	}
	// Once its server has noticed, there is none to abort.
	eventually(t, "no connection is left", func() bool {
		n, err := fuseabort.Process(s.cmd.Process.Pid)
		return n == 0 && err == nil
	})
}

func fuseOnly(t *testing.T) {
	if kindUnderTest() != frontend.FUSE {
		t.Skip("it is about FUSE")
	}
}

// TestAbortFreesAStuckOne frees a process that waits for its own device and so survives its
// SIGKILL.
func TestAbortFreesAStuckOne(t *testing.T) {
	fuseOnly(t)
	path := t.TempDir() + "/disk"
	newFileDevice(t, path, testSize)
	t.Setenv(stuckEnv, "yes")
	s := startServer(t, path)
	pid, thread := s.cmd.Process.Pid, s.blockdev
	eventually(t, "the thread waits uninterruptibly", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread))
		return err == nil && strings.Contains(string(stat), ") D ")
	})
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(ended)
		_ = s.cmd.Wait()
		return nil
	})
	select {
	case <-ended:
		t.Log("the process died by itself; this kernel doesn't need the abort")
	case <-time.After(300 * time.Millisecond):
		if n, err := fuseabort.Process(pid); n != 1 || err != nil {
			t.Errorf("aborted %d connections: %v", n, err)
		}
	}
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("the process can't be killed")
	}
}
