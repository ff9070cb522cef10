package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

// beTheCommand makes the test binary the command itself, for tests that need processes.
const beTheCommand = "SLUICE_TEST_BE_THE_COMMAND"

func TestMain(m *testing.M) {
	// A server gives the process that makes an image no environment.
	if os.Getenv(beTheCommand) != "" || len(os.Args) > 1 && os.Args[1] == unpackName {
		os.Exit(mainCode())
	}
	if err := os.Setenv(beTheCommand, "1"); err != nil { // for all processes from here on
		panic(err)
	}
	os.Exit(m.Run())
}

// diskHost is a host with a pool of disks in a directory. Commands that last are processes, the
// others are too where env has more than the place for records.
type diskHost struct {
	t   *testing.T
	dir string
	env []string
}

func newDiskHost(t *testing.T) *diskHost {
	t.Helper()
	t.Parallel() // they wait for processes more than they work
	dir := t.TempDir()
	h := &diskHost{t: t, dir: dir, env: []string{"SLUICE_RUN_DIR=" + filepath.Join(dir, "run")}}
	t.Cleanup(h.leaveNothing)
	return h
}

// leaveNothing ends what a failed test has left attached.
func (h *diskHost) leaveNothing() {
	_, _ = frontend.Sweep(h.dir)
	live, _, _ := (&deps{env: h.getenv}).registry().List()
	for i := range live {
		h.t.Errorf("%s is still attached: %s", live[i].URL, host.Describe(&live[i]))
		_ = live[i].Process.Signal(unix.SIGKILL)
	}
	_, _ = frontend.Sweep(h.dir)
}

func (h *diskHost) getenv(key string) string {
	for _, e := range h.env {
		if v, ok := strings.CutPrefix(e, key+"="); ok {
			return v
		}
	}
	return ""
}

func (h *diskHost) url(name string) string { return "file://" + h.dir + "/pool/disks/" + name }

func (h *diskHost) mkdir(name string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func (h *diskHost) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), h.env...)
	return cmd
}

// run runs one command and returns what it prints and its exit code.
func (h *diskHost) run(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	var out, bad bytes.Buffer
	if len(h.env) == 1 {
		ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
		defer cancel()
		code = run(ctx, &deps{stdin: strings.NewReader(""), stdout: &out, stderr: &bad,
			env: h.getenv}, args)
		return out.String(), bad.String(), code
	}
	cmd := h.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &bad
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return out.String(), bad.String(), cmd.ProcessState.ExitCode()
}

// must runs "sluice disk …", which has to succeed.
func (h *diskHost) must(args ...string) string {
	h.t.Helper()
	stdout, stderr, code := h.run(append([]string{"disk"}, args...)...)
	if code != 0 {
		h.t.Fatalf("sluice disk %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// refused runs "sluice disk …", which has to fail with a code, a word and a remedy.
func (h *diskHost) refused(code int, word string, args ...string) {
	h.t.Helper()
	stdout, stderr, got := h.run(append([]string{"disk"}, args...)...)
	if got != code || !strings.Contains(stderr, word) || !strings.Contains(stderr, "try: ") &&
		code != exitUsage {
		h.t.Errorf("sluice disk %s: exit %d, want %d with %q and a remedy: %s%s",
			strings.Join(args, " "), got, code, word, stdout, stderr)
	}
}

func (h *diskHost) info(url string) (x localDisk) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("info", url, "--json")), &x); err != nil {
		h.t.Fatal(err)
	}
	return x
}

func (h *diskHost) write(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *diskHost) check(name, want string) {
	h.t.Helper()
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		h.t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
	}
}

// checkFileSystem exports a disk and has e2fsck look at it.
func (h *diskHost) checkFileSystem(url string) {
	h.t.Helper()
	raw := filepath.Join(h.t.TempDir(), "raw")
	h.must("export", url, raw)
	if err := frontend.Fsck(h.t.Context(), raw); err != nil {
		h.t.Error(err)
	}
}

// TestDiskLife is a disk's whole life without a fleet.
func TestDiskLife(t *testing.T) {
	h := newDiskHost(t)
	url, dir, other := h.url("data"), h.mkdir("mnt"), h.mkdir("other")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4", "--label", "data")
	h.refused(exitConflict, "there is a disk", "create", url, "--size", "1GiB")
	h.must("mount", url, dir, "--background")
	h.write(dir+"/a", "one")
	x := h.info(url)
	if len(x.Attachments) != 1 || x.Attachments[0].Mode != "mount" ||
		x.Attachments[0].Mountpoint != dir || x.Attachments[0].Generation != x.Generation ||
		x.State != "open" || syscall.Kill(x.Attachments[0].PID, 0) != nil {
		t.Fatalf("%+v", x)
	}
	h.refused(exitConflict, "mounted on "+dir, "mount", url, other)
	h.refused(exitConflict, "already", "mount", url, dir)
	for _, verb := range [][]string{{"serve", url, "--listen", "127.0.0.1:0"},
		{"export", url, other + "/x"}, {"restore", url, "one"}} {
		if verb[0] == "restore" {
			h.must("checkpoint", url, "one") // by asking the process that has it mounted
		}
		h.refused(exitConflict, "disk detach", verb...)
	}
	h.refused(exitConflict, "one", "checkpoint", url, "one")
	h.write(dir+"/a", "two")
	h.must("mount", url, other, "--background", "--read-only", "--checkpoint", "one")
	h.check(other+"/a", "one")
	if err := os.WriteFile(other+"/b", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write to a checkpoint: %v", err)
	}
	h.refused(exitConflict, "disk detach", "compact", url)
	h.must("detach", url) // both
	h.refused(exitNotFound, "not attached", "detach", dir)
	if x := h.info(url); x.State != "closed" || len(x.Attachments) != 0 {
		t.Errorf("%+v", x)
	}
	h.checkFileSystem(url)
	var c compacted
	if err := json.Unmarshal([]byte(h.must("compact", url, "--target", "1.05", "--json")),
		&c); err != nil {
		t.Fatal(err)
	}
	if c.Packed == 0 || c.MovedBytes == 0 || float64(c.SpaceBytes) > 1.05*float64(c.LiveBytes)+1 {
		t.Errorf("compacted to %+v", c)
	}
	h.refused(exitUsage, "1.01", "compact", url, "--target", "0.5")
	h.checkFileSystem(url)
	h.must("fsck", url, "--data")

	h.must("resize", url, "--size", "128MiB")
	h.refused(exitUsage, "shrink", "resize", url, "--size", "64MiB")
	h.must("mount", url, dir, "--background")
	h.check(dir+"/a", "two")
	if n := system(t, "blockdev", "--getsize64",
		h.info(url).Attachments[0].BlockDevice); strings.TrimSpace(n) != "134217728" {
		t.Errorf("the block device has %s bytes", n)
	}
	// ends it as well as detach
	if err := exec.CommandContext(t.Context(), "umount", dir).Run(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the disk is closed", func() bool {
		x := h.info(url)
		return x.State == "closed" &&
			len(x.Attachments) == 0
	})

	var r restored
	if err := json.Unmarshal([]byte(h.must("restore", url, "one", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	h.must("fork", url, r.Saved, h.url("fork"))
	h.must("mount", url, dir, "--background")
	h.must("mount", h.url("fork"), other, "--background")
	h.check(dir+"/a", "one")
	h.check(other+"/a", "two")
	h.must("detach", dir)
	h.must("detach", other)
	for _, u := range []string{url, h.url("fork")} {
		h.checkFileSystem(u)
		h.must("fsck", u, "--data")
	}
	h.refused(exitNotFound, "data, fork", "info", h.url("nothing"))

	h.refused(exitUsage, "--yes", "destroy", url)
	h.must("mount", url, dir, "--background")
	h.refused(exitConflict, "disk detach", "destroy", url, "--yes")
	h.must("detach", dir)
	h.must("destroy", url, "--yes")
	h.refused(exitNotFound, "no disk", "destroy", url, "--yes")
	// the fork's content is there still
	h.refused(exitConflict, "forks may need", "create", url, "--size", "1GiB")
	h.checkFileSystem(h.url("fork"))
	h.must("fsck", h.url("fork"), "--data")
	h.must("destroy", h.url("fork"), "--yes")
	h.must("create", h.url("fork"), "--size", "1GiB")
}

// TestMachinesDisk: who mounted the disk of a stopped machine would break its next start.
func TestMachinesDisk(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("m"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.write(filepath.Join(h.dir, "pool/disks/m/machine.json"), "{}")
	for _, verb := range [][]string{{"mount", url, dir}, {"serve", url, "--listen", ":0"},
		{"destroy", url, "--yes"}} {
		h.refused(exitConflict, "belongs to a machine", verb...)
	}
	h.must("mount", url, dir, "--read-only", "--background")
	h.must("detach", dir)
	h.must("mount", url, dir, "--take-over", "--background")
	h.must("detach", dir)
}

// TestMountOfAnEmptyDisk: what was never written gets a file system, once; anything else is left as
// it is.
func TestMountOfAnEmptyDisk(t *testing.T) {
	h := newDiskHost(t)
	url, other, dir := h.url("data"), h.url("raw"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB")
	h.refused(exitFailed, "without --read-only", "mount", url, dir, "--read-only")
	h.must("mount", url, dir, "--background")
	h.write(dir+"/a", "kept")
	h.must("detach", dir)
	h.must("mount", url, dir, "--background")
	h.check(dir+"/a", "kept")
	h.must("detach", dir)
	h.checkFileSystem(url)

	raw := filepath.Join(h.dir, "raw")
	h.write(raw, strings.Repeat("x", 4096))
	if err := os.Truncate(raw, 64<<20); err != nil {
		t.Fatal(err)
	}
	h.must("import", raw, other)
	h.refused(exitFailed, "no file system", "mount", other, dir)
	h.must("export", other, filepath.Join(h.dir, "back"))
	h.check(filepath.Join(h.dir, "back"),
		strings.Repeat("x", 4096)+strings.Repeat("\x00", 64<<20-4096))
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// foreground starts a command that lasts, and returns when it says on stdout that it is ready.
func (h *diskHost) foreground(args ...string) (*exec.Cmd, *bytes.Buffer) {
	h.t.Helper()
	cmd := h.command(append([]string{"disk"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = cmd.Wait()
		h.t.Fatalf("sluice disk %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return cmd, &stderr
}

// TestKilledMount kills the process of a mount while files are written and fsynced, and mounts
// again at the same place: whatever was acknowledged is there, and the file system is whole.
func TestKilledMount(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("data"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	acked := 0
	for round := range 3 {
		cmd, _ := h.foreground("mount", url, dir)
		for n := 1; n <= acked; n++ {
			h.check(fmt.Sprintf("%s/%d", dir, n), strings.Repeat(fmt.Sprint(n, " "), 300))
		}
		done, begun := make(chan int, 1), make(chan struct{})
		go func() { done <- writeUntilItFails(dir, acked, begun) }()
		select {
		case <-begun:
		case acked = <-done:
			t.Fatalf("no file could be written in round %d, after %d", round, acked)
		}
		// so that the kill hits another moment each time
		time.Sleep(time.Duration(13*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		acked = <-done
	}
	t.Logf("%d files acknowledged over 3 kills", acked)
	h.refused(exitNotFound, "killed", "detach", dir)
	h.checkFileSystem(url) // which settles the disk, after its writer that died
	h.must("fsck", url, "--data")
	cmd, stderr := h.foreground("mount", url, dir)
	for n := 1; n <= acked; n++ {
		h.check(fmt.Sprintf("%s/%d", dir, n), strings.Repeat(fmt.Sprint(n, " "), 300))
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v: %s", err, stderr)
	}
	h.checkFileSystem(url)
}

func writeUntilItFails(dir string, from int, begun chan<- struct{}) int {
	for n := from + 1; ; n++ {
		f, err := os.Create(fmt.Sprintf("%s/%d", dir, n))
		if err != nil {
			return n - 1
		}
		_, err = io.WriteString(f, strings.Repeat(fmt.Sprint(n, " "), 300))
		if err == nil {
			err = f.Sync()
		}
		f.Close()
		if err != nil {
			return n - 1
		}
		if n == from+3 {
			close(begun)
		}
	}
}

// TestBusyMount: a directory in use stays mounted until it isn't, and --force cuts it off.
func TestBusyMount(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("data"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.must("mount", url, dir, "--background")
	f, err := os.Create(dir + "/a")
	if err != nil {
		t.Fatal(err)
	}
	h.refused(exitUnavailable, "fuser", "detach", dir, "--wait", "300ms")
	if _, err := f.WriteString("still works"); err != nil {
		t.Error(err)
	}
	f.Close()
	waitFor(t, "the disk is closed", func() bool { return h.info(url).State == "closed" })
	h.must("mount", url, dir, "--background")
	h.check(dir+"/a", "still works")
	if f, err = os.Open(dir + "/a"); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan struct{})
	go func() { // lets go only after the mount has been cut off
		defer close(done)
		waitFor(t, "the mount is gone", func() bool {
			m, err := host.MountAt(dir)
			return m == nil &&
				err == nil
		})
		f.Close()
	}()
	h.must("detach", dir, "--force")
	<-done
	h.checkFileSystem(url)
}
