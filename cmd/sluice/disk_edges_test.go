package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlushOnAnotherConnection writes on one NBD connection, flushes on another, and kills the
// server: multi-conn promises that the flush is of both. Sizes and places are odd, and as large as
// a request may be.
func TestFlushOnAnotherConnection(t *testing.T) {
	h := newDiskHost(t)
	url, socket := h.url("data"), filepath.Join(h.dir, "nbd.sock")
	uri := "nbd+unix:///?socket=" + socket
	h.must("create", url, "--size", "128MiB")
	server, _ := h.foreground("serve", url, "--socket", socket)
	writer := exec.CommandContext(t.Context(), "stdbuf", "-oL", "qemu-io", "-f", "raw", uri)
	in, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said lines
	writer.Stdout, writer.Stderr = &said, &said
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	// Larger ones than 32 MiB are split by clients, which are told the limit.
	for i, line := range []string{"write -P 1 1 1", "write -P 2 4095 2", "write -P 3 1000001 4097",
		"write -P 4 8M 32M", "write -P 5 41943041 50331647"} {
		waitFor(t, "it asks for a command",
			func() bool { return strings.Count(said.String(), "qemu-io> ") > i })
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, line, func() bool { return strings.Count(said.String(), "wrote ") > i })
	}
	system(t, "qemu-io", "-f", "raw", "-c", "flush", uri)
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	_ = in.Close()
	_ = writer.Wait() // its server is gone
	h.must("serve", url, "--socket", socket, "--background")
	out := system(t, "qemu-io", "-f", "raw", "-c", "read -P 0 0 1", "-c", "read -P 1 1 1", "-c",
		"read -P 0 2 4093", "-c", "read -P 2 4095 2", "-c", "read -P 3 1000001 4097",
		"-c", "read -P 4 8M 32M", "-c", "read -P 5 41943041 50331647", "-c",
		"read -P 0 92274688 1M", uri)
	if strings.Contains(out, "Pattern verification failed") {
		t.Error(out)
	}
	h.refused(exitUsage, "shrink", "resize", url, "--size", "64MiB") // while it is attached too
	h.must("detach", url)
}

// TestDirectoriesThatCannotBeWritten: whatever needs room for a moment says where it looks for it.
func TestDirectoriesThatCannotBeWritten(t *testing.T) {
	h := newDiskHost(t)
	full := h.mkdir("full")
	system(t, "mount", "-t", "tmpfs", "-o", "size=64k,ro", "tmpfs", full)
	t.Cleanup(func() { _ = exec.Command("umount", full).Run() })
	h.must("create", h.url("data"), "--size", "16MiB")
	h.env = append(h.env, "TMPDIR="+full)
	h.refused(exitUnavailable, "read-only", "create", h.url("fs"), "--size", "16MiB",
		"--fs", "ext4")
	h.refused(exitNotFound, "no disk", "info", h.url("fs"))
	h.refused(exitUnavailable, "read-only", "export", h.url("data"),
		filepath.Join(h.dir, "x.qcow2"))
	h.refused(exitUnavailable, "read-only", "bench", h.url("bench"), "--size", "1MiB", "--duration",
		"1ms", "--cache", "1MiB")
	system(t, "mount", "-o", "remount,rw", full)
	// a full cache is a small one
	h.must("bench", h.url("bench"), "--size", "16MiB", "--duration", "10ms", "--cache", "16MiB")
	h.refused(exitConflict, "already", "export", h.url("data"), full)
	h.refused(exitExhausted, "no space", "import", rawFile(t, 20<<20), "file://"+full+"/disks/x")
}
