package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
)

// TestLogOnASecondServer has a disk on one S3 server and its log on another: written over NBD and
// killed, the log's server gone and back, wrong and forgotten log stores, and a life without it.
func TestLogOnASecondServer(t *testing.T) {
	h := newDiskHost(t)
	main, fast := versitygwtest.Start(t), versitygwtest.Start(t)
	h.env = append(h.env, "AWS_ACCESS_KEY_ID="+versitygwtest.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+versitygwtest.SecretKey)
	disk, logs := main.URL("pool/disks/data"), fast.URL("logs")
	withLog := func(disk, logs string) string { return disk + "&log=" + url.QueryEscape(logs) }
	raw := rawFile(t, 20<<20)
	socket := filepath.Join(h.dir, "nbd.sock")
	uri := "nbd+unix:///?socket=" + socket

	h.refused(exitUsage, "log store", "create", disk+"&log=mem://", "--size", "20MiB")
	h.refused(exitDenied, "no-such-bucket", "create", withLog(disk,
		strings.Replace(logs, "s3://bucket/", "s3://no-such-bucket/", 1)), "--size", "20MiB")
	h.must("create", withLog(disk, logs), "--size", "20MiB")
	if x := h.info(disk); x.LogStore != logs || x.Log == nil || x.LogError != "" {
		t.Fatalf("%+v", x)
	}
	h.refused(exitConflict, "remembers", "serve", withLog(disk, main.URL("logs")),
		"--socket", socket)

	server, _ := h.foreground("serve", disk, "--socket", socket)
	system(t, "nbdcopy", "--flush", raw, uri)
	if err := server.Process.Kill(); err != nil { // what was flushed last is in the log alone
		t.Fatal(err)
	}
	_ = server.Wait()
	fast.Kill()
	before := h.info(disk)
	if before.LogError == "" || before.State != "open" {
		t.Errorf("a log store that is gone: %+v", before)
	}
	h.refused(exitUnavailable, "log store "+logs, "serve", disk, "--socket", socket,
		"--stall-timeout", "1s")
	if after := h.info(disk); after.Epoch != before.Epoch || after.UpdatedAt != before.UpdatedAt {
		t.Errorf("an attach that was refused changed the disk: %+v, then %+v", before, after)
	}
	// what the newest map has needs no log
	reader, _ := h.foreground("serve", disk, "--socket", socket, "--read-only")
	system(t, "nbdcopy", uri, filepath.Join(h.dir, "newest-map.img"))
	if err := reader.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := reader.Wait(); err != nil {
		t.Fatal(err)
	}

	fast.Restart(t)
	server, _ = h.foreground("serve", disk, "--socket", socket)
	system(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
	h.must("checkpoint", disk, "full")
	if err := server.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Fatal(err)
	}
	h.must("fsck", disk, "--data")
	if out := h.must("collect", main.URL("pool")); strings.Contains(out, "left alone") {
		t.Errorf("the disk's own log is taken for another's: %s", out)
	}

	fast.Kill() // for good
	h.must("fork", disk, "full", main.URL("pool/disks/fork"))
	out := filepath.Join(h.dir, "fork.img")
	h.must("export", main.URL("pool/disks/fork"), out)
	system(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, out)
	h.must("fsck", main.URL("pool/disks/fork"), "--data")
	h.must("destroy", disk, "--yes", "--lost-log")
	h.refused(exitNotFound, "no disk", "info", disk)
}
