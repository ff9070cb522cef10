package nbd_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
)

// transmit serves dev as the kernel's client is served, and returns the client's end and how to end
// the server.
func transmit(t *testing.T, dev disk.Device) (*client, func() error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "client")
	conn, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		return nbd.Transmit(ctx, nbd.Config{Exports: []nbd.Export{{Name: "a", Device: dev}}},
			os.NewFile(uintptr(pair[0]), "server"))
	})
	stop := func() error {
		cancel()
		return g.Wait()
	}
	t.Cleanup(func() {
		conn.Close()
		_ = stop()
	})
	return &client{t, conn}, stop
}

func TestTransmit(t *testing.T) {
	c, stop := transmit(t, newDisk(t))
	// Many at once, as the kernel sends them: answers may come in any order.
	want := map[uint64][]byte{}
	for i := range uint64(8) {
		want[i] = bytes.Repeat([]byte{byte(i + 1)}, 8<<10)
		c.request(0, 1, i, i*8192, 8192, want[i])
	}
	for range want {
		if errno, handle := c.answer(); errno != 0 || want[handle] == nil {
			t.Fatalf("write %d: errno %d", handle, errno)
		}
	}
	c.request(0, 3, 100, 0, 0, nil)
	if errno, handle := c.answer(); handle != 100 || errno != 0 {
		t.Fatalf("a flush was answered with errno %d for %d", errno, handle)
	}
	for i := range want {
		c.request(0, 0, i, i*8192, 8192, nil)
	}
	for range want {
		errno, handle := c.answer()
		if errno != 0 || !bytes.Equal(c.read(8192), want[handle]) {
			t.Fatalf("read %d: errno %d, or other content than was written", handle, errno)
		}
	}
	c.request(0, 0, 7, diskSize, 4096, nil)
	if errno, handle := c.answer(); handle != 7 || errno != eInval {
		t.Errorf("a read past the end was answered with errno %d", errno)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !c.hungUp() {
		t.Error("the connection outlives the server")
	}
}

// A flush that waits for the store delays nothing that was sent after it, and is answered although
// the server ends.
func TestTransmitSlowDevice(t *testing.T) {
	slow := &slowDevice{Disk: newDisk(t), enter: make(chan struct{}, 1),
		release: make(chan struct{})}
	c, stop := transmit(t, slow)
	c.request(0, 3, 1, 0, 0, nil)
	<-slow.enter
	c.request(0, 0, 2, 0, 4096, nil)
	if errno, handle := c.answer(); handle != 2 || errno != 0 {
		t.Fatalf("while a flush waits, %d was answered with errno %d", handle, errno)
	}
	c.read(4096)
	ended := make(chan error, 1)
	var g errgroup.Group
	g.Go(func() error {
		ended <- stop()
		return nil
	})
	select {
	case err := <-ended:
		t.Fatalf("ended with a request under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(slow.release)
	if errno, handle := c.answer(); handle != 1 || errno != 0 {
		t.Errorf("the flush under way was answered with errno %d for %d", errno, handle)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = g.Wait()
}

type slowDevice struct {
	*disk.Disk
	enter, release chan struct{}
}

func (d *slowDevice) Flush(ctx context.Context) error {
	d.enter <- struct{}{}
	<-d.release
	return d.Disk.Flush(ctx)
}
