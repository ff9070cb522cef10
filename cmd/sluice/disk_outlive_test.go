package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/host"
)

// scribbler is a program that makes one file after the other in a directory, whatever becomes of
// it.
type scribbler struct {
	tries, failed atomic.Int64
	stop          chan struct{}
	group         errgroup.Group
}

func startScribbler(dir string) *scribbler {
	s := &scribbler{stop: make(chan struct{})}
	s.group.Go(func() error {
		for ; ; s.tries.Add(1) {
			select {
			case <-s.stop:
				return nil
			case <-time.After(time.Millisecond):
			}
			f, err := os.OpenFile(filepath.Join(dir, "scribble"),
				os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
			if err == nil {
				_, err = f.WriteString("written")
				err = errors.Join(err, f.Sync(), f.Close())
			}
			if err != nil {
				s.failed.Add(1)
			}
		}
	})
	return s
}

// goesOn waits until it has tried some more.
func (s *scribbler) goesOn(t *testing.T) {
	t.Helper()
	from := s.tries.Load()
	waitFor(t, "the program goes on", func() bool { return s.tries.Load() > from+50 })
}

func (s *scribbler) end() {
	close(s.stop)
	_ = s.group.Wait() // it returns nil
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	if m, err := host.MountAt(dir); m != nil || err != nil {
		t.Errorf("%+v is on %s: %v", m, dir, err)
	}
	if there, err := os.ReadDir(dir); len(there) != 0 || err != nil {
		t.Errorf("beneath the mount: %v %v", there, err)
	}
}

// TestTakenOverMount: the one that is cut off says so and gives errors, and its mount stays until
// somebody unmounts it, under a program that goes on writing. Nothing is ever written into the
// directory beneath.
func TestTakenOverMount(t *testing.T) {
	h := newDiskHost(t)
	url, dir, other := h.url("data"), h.mkdir("mnt"), h.mkdir("other")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	cmd, stderr := h.foreground("mount", url, dir)
	h.write(dir+"/a", "one")
	if err := host.SyncMount(dir); err != nil {
		t.Fatal(err)
	}
	program := startScribbler(dir)
	program.goesOn(t)
	h.must("mount", url, other, "--background", "--take-over")
	h.check(other+"/a", "one")
	waitFor(t, "the program gets errors", func() bool { return program.failed.Load() > 0 })
	program.goesOn(t)
	waitFor(t, "disk info says it", func() bool {
		x := h.info(url)
		return len(x.Attachments) == 2 && strings.Contains(x.Attachments[0].Ended, "taken over")
	})
	if text := h.must("info", url); !strings.Contains(text, "cut off") ||
		!strings.Contains(text, "disk detach "+dir) {
		t.Errorf("%s", text)
	}
	h.must("checkpoint", url, "mine") // who has it is asked, and not who had it
	user, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.refused(exitUnavailable, "fuser", "detach", dir, "--wait", "300ms") // it goes on waiting
	before := program.failed.Load()
	program.goesOn(t)
	if program.failed.Load() < before+50 {
		t.Error("a write has succeeded where the disk is cut off")
	}
	program.end()
	user.Close()
	err = cmd.Wait()
	if said := stderr.String(); cmd.ProcessState.ExitCode() != exitConflict ||
		!strings.Contains(said, "try: ") || !strings.Contains(said, "stays mounted") {
		t.Errorf("the one that was cut off: %v: %s", err, said)
	}
	mustBeEmpty(t, dir)
	h.must("detach", other)
	h.checkFileSystem(url)
}

// TestTakenOverDevice: the path of a device that is cut off doesn't become another's while it is
// attached.
func TestTakenOverDevice(t *testing.T) {
	h := newDiskHost(t)
	url := h.url("data")
	h.must("create", url, "--size", "64MiB")
	cmd, stderr := h.foreground("attach", url)
	first := h.info(url).Attachments[0].BlockDevice
	h.must("attach", url, "--background", "--take-over")
	waitFor(t, "a write fails", func() bool { return writeBlock(first) != nil })
	waitFor(t, "disk info says it", func() bool {
		x := h.info(url)
		return len(x.Attachments) == 2 && x.Attachments[0].Ended != ""
	})
	if err := writeBlock(first); !errors.Is(err, unix.EIO) {
		t.Errorf("the device that is cut off: %v", err)
	}
	h.must("detach", first)
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitConflict {
		t.Errorf("the one that was cut off: exit %d: %s", cmd.ProcessState.ExitCode(), stderr)
	}
	h.must("detach", url)
}

// writeBlock writes the first block of a device, to the device.
func writeBlock(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close())
}

// TestKilledMountIsMountedOver kills the process of a mount under a program that goes on writing,
// and mounts again at the same place: at no moment is the directory beneath to be written. In the
// end nothing of the killed one is left.
func TestKilledMountIsMountedOver(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("data"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	var program *scribbler
	for round := range 3 {
		cmd, _ := h.foreground("mount", url, dir)
		if round == 0 {
			program = startScribbler(dir)
		}
		program.goesOn(t)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		program.goesOn(t)
	}
	cmd, stderr := h.foreground("mount", url, dir)
	program.goesOn(t)
	program.end()
	h.check(dir+"/scribble", "written")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v: %s", err, stderr)
	}
	mustBeEmpty(t, dir)
	h.checkFileSystem(url)
}
