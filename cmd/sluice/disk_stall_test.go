package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// recorder appends numbered records to a file, each fsynced before it counts.
type recorder struct {
	t     *testing.T
	file  string
	size  int // of a record
	acked atomic.Int64
	stop  chan struct{}
	group errgroup.Group
}

func startRecorder(t *testing.T, file string, size int) *recorder {
	r := &recorder{t: t, file: file, size: size, stop: make(chan struct{})}
	r.group.Go(r.run)
	return r
}

func (r *recorder) run() error {
	f, err := os.OpenFile(r.file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	record := make([]byte, r.size)
	for n := r.acked.Load() + 1; ; n++ {
		select {
		case <-r.stop:
			return f.Close()
		default:
		}
		for at := 0; at < r.size; at += 8 { // nothing that a store's disk would hold in less space
			binary.BigEndian.PutUint64(record[at:],
				uint64(n)*0x9e3779b97f4a7c15^uint64(at)*0xff51afd7ed558ccd)
		}
		binary.BigEndian.PutUint64(record, uint64(n))
		if _, err := f.Write(record); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := f.Sync(); err != nil {
			return errors.Join(err, f.Close())
		}
		r.acked.Store(n)
	}
}

// end stops it and returns what stopped it before, if anything did.
func (r *recorder) end() error {
	close(r.stop)
	return r.group.Wait()
}

// goesOn waits until it has got some records further.
func (r *recorder) goesOn() {
	r.t.Helper()
	from := r.acked.Load()
	waitFor(r.t, "the writer goes on", func() bool { return r.acked.Load() >= from+3 })
}

// check looks for all acknowledged records, in order.
func (r *recorder) check() {
	r.t.Helper()
	b, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	acked := int(r.acked.Load())
	if len(b) < acked*r.size || acked == 0 {
		r.t.Fatalf("%d records were acknowledged, and %d are there", acked, len(b)/r.size)
	}
	for i := range acked {
		if n := binary.BigEndian.Uint64(b[i*r.size:]); n != uint64(i+1) {
			r.t.Fatalf("record %d is %d", i+1, n)
		}
	}
	r.t.Logf("%d records", acked)
}

// s3Host is a host with disks on a real S3 server.
func s3Host(t *testing.T, dir string) (*diskHost, *versitygwtest.Server, func(name string) string) {
	t.Helper()
	h := newDiskHost(t)
	if dir == "" {
		dir = t.TempDir()
	}
	s3 := versitygwtest.StartIn(t, dir)
	h.env = append(h.env, "AWS_ACCESS_KEY_ID="+versitygwtest.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+versitygwtest.SecretKey)
	return h, s3, func(name string) string { return s3.URL("pool/disks/" + name) }
}

// stalled waits until the disk's attachment here says that its store has stalled, and returns what
// it says.
func (h *diskHost) stalled(url string) (x localDisk) {
	h.t.Helper()
	waitFor(h.t, "a stall", func() bool {
		x = h.info(url)
		return len(x.Attachments) == 1 && x.Attachments[0].Stall != nil
	})
	return x
}

// TestStoreStopsUnderAMount: a real S3 server hangs, and then is killed, under a mounted file
// system with a writer that fsyncs. It waits, and goes on with the same attachment; nothing
// acknowledged is lost, not even when the attachment's process is killed at the end.
func TestStoreStopsUnderAMount(t *testing.T) {
	h, s3, url := s3Host(t, "")
	disk, dir := url("data"), h.mkdir("mnt")
	h.must("create", disk, "--size", "64MiB", "--fs", "ext4")
	h.must("mount", disk, dir, "--background")
	before := h.info(disk).Attachments[0]
	w := startRecorder(t, filepath.Join(dir, "records"), 64)
	w.goesOn()

	s3.Pause(t)
	x := h.stalled(disk)
	if s := x.Attachments[0].Stall; !strings.Contains(s.Operation, "disks/data/") ||
		s.Kind != errs.Unavailable || s.HeldSince.IsZero() || x.StoreError == "" {
		t.Errorf("hung: %+v, store error %q", s, x.StoreError)
	}
	h.want(0, "try: ", "disk", "info", disk)
	var rows []topRow
	if err := json.Unmarshal([]byte(h.must("top", "--json", "--once", "--every", "100ms")),
		&rows); err != nil || len(rows) != 1 || rows[0].State != "stalled" || rows[0].Stall == nil {
		t.Errorf("top: %+v, %v", rows, err)
	}
	held := w.acked.Load()
	s3.Resume(t)
	w.goesOn()

	s3.Kill()
	x = h.stalled(disk)
	if s := x.Attachments[0].Stall; !strings.Contains(s.Reason, "connection refused") ||
		s.Kind != errs.Unavailable {
		t.Errorf("gone: %+v", s)
	}
	s3.Restart(t)
	w.goesOn()
	if err := w.end(); err != nil {
		t.Fatalf("the writer saw an error, after %d records: %v", held, err)
	}
	x = h.info(disk)
	if a := x.Attachments[0]; a.Stall != nil || a.PID != before.PID || a.Epoch != before.Epoch ||
		x.StoreError != "" {
		t.Errorf("afterwards: %+v", a)
	}
	if log, err := os.ReadFile(h.logOf(disk)); err != nil ||
		strings.Count(string(log), "the store has stalled") != 2 ||
		strings.Count(string(log), "the store answers again") != 2 {
		t.Errorf("log: %v\n%s", err, log)
	}
	if err := before.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the killed mount",
		func() bool { return len(h.info(disk).Attachments) == 0 })
	h.must("mount", disk, dir, "--background")
	w.check()
	h.must("detach", disk)
	h.checkFileSystem(disk)
}

func (h *diskHost) logOf(url string) string {
	h.t.Helper()
	x := h.info(url)
	if len(x.Attachments) != 1 || x.Attachments[0].Log == "" {
		h.t.Fatalf("%+v", x)
	}
	return x.Attachments[0].Log
}

// TestStoreStopsForTooLong: after the bound the file system gets an I/O error and turns read-only;
// mounted again on the same attachment, it has all that was acknowledged, and serves on.
func TestStoreStopsForTooLong(t *testing.T) {
	h, s3, url := s3Host(t, "")
	disk, dir := url("data"), h.mkdir("mnt")
	h.must("create", disk, "--size", "64MiB", "--fs", "ext4")
	h.refused(exitUsage, "--stall-timeout", "attach", disk, "--stall-timeout", "1ms")
	h.must("attach", disk, "--background", "--stall-timeout", "3s")
	device := h.info(disk).Attachments[0].BlockDevice
	system(t, "mount", "-o", "errors=remount-ro", device, dir)
	w := startRecorder(t, filepath.Join(dir, "records"), 64)
	w.goesOn()
	s3.Pause(t)
	if err := w.group.Wait(); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS) {
		t.Errorf("the writer ended with %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "late"), nil, 0o600); !errors.Is(err, unix.EROFS) &&
		!errors.Is(err, unix.EIO) {
		t.Errorf("a write to the file system after the error: %v", err)
	}
	s3.Resume(t)
	waitFor(t, "the end of the stall",
		func() bool { return h.info(disk).Attachments[0].Stall == nil })
	system(t, "umount", dir)
	waitFor(t, "the device to be free of mounts, also in namespaces that others have just made",
		func() bool {
			fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
			return err == nil && unix.Close(fd) == nil
		})
	if err := frontend.Fsck(t.Context(), device); err != nil {
		t.Error(err)
	}
	system(t, "mount", device, dir)
	w.check()
	w = startRecorder(t, filepath.Join(dir, "more"), 64)
	w.goesOn()
	if err := w.end(); err != nil {
		t.Error(err)
	}
	w.check()
	system(t, "umount", dir)
	// it has refused writes, and says so at its end too
	h.refused(exitUnavailable, "not ended in order", "detach", device)
	h.checkFileSystem(disk)
}

// TestStoreIsFull: the S3 server's own disk fills up under a writer. It waits, and goes on once
// there is space.
func TestStoreIsFull(t *testing.T) {
	tiny := t.TempDir()
	if err := unix.Mount("small", tiny, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(tiny, 0); err != nil {
			t.Errorf("unmount the server's directory: %v", err)
		}
	})
	h, _, url := s3Host(t, tiny)
	disk, dir := url("data"), h.mkdir("mnt")
	h.must("create", disk, "--size", "128MiB", "--fs", "ext4")
	h.must("mount", disk, dir, "--background")
	w := startRecorder(t, filepath.Join(dir, "records"), 1<<20)
	x := h.stalled(disk)
	t.Logf("%+v", *x.Attachments[0].Stall)
	if s := x.Attachments[0].Stall; !strings.HasPrefix(s.Operation, "write ") || s.Remedy == "" {
		t.Errorf("stalled: %+v", s)
	}
	full := w.acked.Load()
	if err := unix.Mount("small", tiny, "tmpfs", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	w.goesOn()
	if err := w.end(); err != nil {
		t.Errorf("after %d records: %v", full, err)
	}
	w.check()
	h.must("detach", disk)
	h.checkFileSystem(disk)
}
