package ownsync

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes a call of sync in a process of its own, and exits with what it returns.
func TestMain(m *testing.M) {
	number, err := strconv.Atoi(os.Getenv("SLUICE_TEST_SYNC_CALL"))
	if err != nil {
		os.Exit(m.Run())
	}
	_, _, errno := unix.RawSyscall(uintptr(number), 0, 0, 0)
	os.Exit(int(errno))
}

// disk counts write-outs, and holds them up while it is told to.
type disk struct {
	begun atomic.Int64
	gate  chan struct{} // one write-out for each that is received; closed, they don't wait
}

func (d *disk) writeOut() error {
	d.begun.Add(1)
	<-d.gate
	return errors.New("the disk is broken") // which nobody is told
}

// serve starts commands under the filter, and serves their calls until the test ends.
func serve(t *testing.T, flag uintptr, commands ...*exec.Cmd) *disk {
	t.Helper()
	d := &disk{gate: make(chan struct{})}
	var listener *os.File
	err := filter(flag, func(l *os.File) error {
		fd, err := unix.Dup(int(l.Fd()))
		if err != nil {
			return err
		}
		if listener, err = Inherited(fd); err != nil {
			return err
		}
		for _, cmd := range commands {
			if err := cmd.Start(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(Config{Listener: listener, WriteOut: d.writeOut}).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		d.open()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
		for _, cmd := range commands {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		listener.Close()
	})
	return d
}

// open lets all write-outs pass from now on.
func (d *disk) open() {
	select {
	case <-d.gate:
	default:
		close(d.gate)
	}
}

func (d *disk) awaitBegun(t *testing.T, n int64) {
	t.Helper()
	await(t, "write-out "+strconv.FormatInt(n, 10), func() bool { return d.begun.Load() >= n })
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// result is how a command ended, in the background.
func result(cmd *exec.Cmd) chan error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended
}

func calling(number int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_SYNC_CALL="+strconv.Itoa(number))
	return cmd
}

// calling32 is a program of 32 bits that exits with what sync returns.
func calling32(t *testing.T) *exec.Cmd {
	t.Helper()
	code := []byte{
		0xb8, 36, 0, 0, 0, // mov eax, sync
		0xcd, 0x80, // int 0x80
		0x89, 0xc3, // mov ebx, eax
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xcd, 0x80,
	}
	const base, headers = 0x8048000, 52 + 32
	le := binary.LittleEndian
	elf := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(elf, 2) // executable
	elf = le.AppendUint16(elf, 3) // i386
	for _, word := range []uint32{1, base + headers, 52, 0, 0} {
		elf = le.AppendUint32(elf, word)
	}
	for _, half := range []uint16{52, 32, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, half)
	}
	size := uint32(headers + len(code))
	for _, word := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		elf = le.AppendUint32(elf, word)
	}
	path := filepath.Join(t.TempDir(), "sync32")
	if err := os.WriteFile(path, append(elf, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return exec.Command(path)
}

// TestEverySyncIsServed: whichever way it is said, a sync waits for the write-out of the server,
// and returns 0 even if that fails.
func TestEverySyncIsServed(t *testing.T) {
	for name, cmd := range map[string]*exec.Cmd{
		"64 bits": calling(unix.SYS_SYNC), "x32": calling(x32 | unix.SYS_SYNC),
		"32 bits": calling32(t), "command": exec.Command("sync"),
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, cmd)
			ended := result(cmd)
			d.awaitBegun(t, 1)
			select {
			case err := <-ended:
				t.Fatalf("it didn't wait: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			d.gate <- struct{}{}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOthersAreUntouched: what syncs a file, or one file system, is the kernel's own.
func TestOthersAreUntouched(t *testing.T) {
	file := filepath.Join("/dev/shm", "sluice-ownsync-"+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	cmd := exec.Command("sh", "-c",
		`sync "$0" && sync --data "$0" && sync --file-system "$0"`, file)
	d := serve(t, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, cmd)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if n := d.begun.Load(); n != 0 {
		t.Errorf("%d syncs arrived", n)
	}
}

// TestManyAtOnce: however many ask, there is one write-out at a time, and each of them waits for
// one that began after it had asked.
func TestManyAtOnce(t *testing.T) {
	first, rest := exec.Command("sync"), exec.Command("sh", "-c",
		"read go; for i in $(seq 200); do sync & done; echo; wait; echo done")
	stdin, err := rest.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := rest.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, first, rest)
	d.awaitBegun(t, 1)
	_, _ = io.WriteString(stdin, "go\n")
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	await(t, "200 that wait", func() bool { return waitingIn(t, rest.Process.Pid, "sync") == 200 })
	d.gate <- struct{}{}
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	d.awaitBegun(t, 2)
	if n := waitingIn(t, rest.Process.Pid, "sync"); n != 200 {
		t.Errorf("%d still wait after a write-out that began before they asked, want 200", n)
	}
	d.open()
	if out, err := io.ReadAll(stdout); err != nil || string(out) != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
	if n := d.begun.Load(); n > 4 { // some may have been slow to ask
		t.Errorf("%d write-outs for 201 syncs", n)
	}
}

// waitingIn counts the children of a process that run a command and wait in a filtered call.
func waitingIn(t *testing.T, parent int, name string) int {
	t.Helper()
	children, err := os.ReadFile("/proc/" + strconv.Itoa(parent) + "/task/" + strconv.Itoa(
		parent) + "/children")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, pid := range strings.Fields(string(children)) {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		call, _ := os.ReadFile("/proc/" + pid + "/syscall")
		if string(comm) == name+"\n" &&
			strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_SYNC)+" ") {
			n++
		}
	}
	return n
}

// TestSignals: one who waits can be killed; a signal that it handles doesn't make it go on with
// nothing written, as it wouldn't in the kernel.
func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT} {
		cmd := exec.Command("sync")
		d := serve(t, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, cmd)
		d.awaitBegun(t, 1)
		_ = cmd.Process.Signal(sig)
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) ||
			exit.Sys().(interface{ Signal() unix.Signal }).Signal() != sig {
			t.Errorf("%v: %v", sig, err)
		}
		d.open() // and its answer finds nobody, which is no error
	}
	handles := exec.Command("perl", "-e",
		`$SIG{USR1} = sub { print "handled\n" }; $| = 1; print syscall(162) . " $!\n"`)
	out, err := handles.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, handles)
	d.awaitBegun(t, 1)
	for range 3 {
		_ = handles.Process.Signal(unix.SIGUSR1)
		time.Sleep(20 * time.Millisecond)
	}
	d.open()
	if text, err := io.ReadAll(out); err != nil || string(text) != "handled\n0 \n" &&
		!strings.HasPrefix(string(text), "0 \n") {
		t.Errorf("%q, %v", text, err)
	}
}

// TestOlderKernel: without the flag that waits signals out, all is the same for who gets none.
func TestOlderKernel(t *testing.T) {
	const unknown = 1 << 30
	cmd := exec.Command("sync")
	d := serve(t, unknown, cmd)
	d.awaitBegun(t, 1)
	d.open()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOneListener says what is wrong where somebody else intercepts calls already.
func TestOneListener(t *testing.T) {
	err := Filter(func(*os.File) error {
		_, err := install(0)
		return err
	})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "sync") {
		t.Errorf("%v", err)
	}
}

// TestFilterLeavesTheRestAlone: what is started beside it, and after it, is not under the filter.
func TestFilterLeavesTheRestAlone(t *testing.T) {
	filters := func() string {
		out, err := exec.Command("grep", "Seccomp_filters:", "/proc/self/status").Output()
		if err != nil {
			t.Errorf("look: %v", err)
		}
		return string(out)
	}
	before := filters()
	for range 10 {
		err := Filter(func(*os.File) error {
			if inside, err := os.ReadFile("/proc/thread-self/status"); err != nil ||
				strings.Contains(string(inside), before) {
				t.Errorf("not under the filter: %v", err)
			}
			if now := filters(); now == before {
				t.Error("a child of the thread isn't under the filter")
			}
			var beside sync.WaitGroup
			for range 4 {
				beside.Go(func() {
					if now := filters(); now != before {
						t.Errorf("beside it: %s, before %s", now, before)
					}
				})
			}
			beside.Wait()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if now := filters(); now != before {
			t.Errorf("after it: %s, before %s", now, before)
		}
	}
}
