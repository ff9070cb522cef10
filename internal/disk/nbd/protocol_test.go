package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/nbd"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var be = binary.BigEndian

// Errnos as they are on the wire.
const (
	ePerm, eIO, eInval, eNoSpace, eNotSup, eShutdown = 1, 5, 22, 28, 95, 108
)

// client speaks as much of the protocol as it takes to send what other clients never would.
type client struct {
	t *testing.T
	c net.Conn
}

// dial begins a session with the first export, with simple replies.
func dial(t *testing.T, s *served) *client {
	t.Helper()
	c := hello(t, s)
	c.option(7, []byte{0, 0, 0, 0, 0, 0}) // GO
	for {
		kind, _ := c.optionReply()
		if kind == 1 {
			return c
		}
		if kind != 3 {
			t.Fatalf("GO was answered with %#x", kind)
		}
	}
}

// hello connects and exchanges flags.
func hello(t *testing.T, s *served) *client {
	t.Helper()
	conn, err := net.Dial("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn}
	c.read(18)
	c.write([]byte{0, 0, 0, 3})
	return c
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.c, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *client) option(opt uint32, data []byte) {
	c.t.Helper()
	b := be.AppendUint64(nil, 0x49484156454F5054)
	b = be.AppendUint32(be.AppendUint32(b, opt), uint32(len(data)))
	c.write(append(b, data...))
}

func (c *client) optionReply() (uint32, []byte) {
	c.t.Helper()
	h := c.read(20)
	return be.Uint32(h[12:]), c.read(int(be.Uint32(h[16:])))
}

func (c *client) request(flags, cmd uint16, handle, off uint64, length uint32, payload []byte) {
	c.t.Helper()
	b := be.AppendUint32(nil, 0x25609513)
	b = be.AppendUint16(be.AppendUint16(b, flags), cmd)
	b = be.AppendUint64(be.AppendUint64(b, handle), off)
	c.write(append(be.AppendUint32(b, length), payload...))
}

// answer reads a simple reply's error and handle.
func (c *client) answer() (uint32, uint64) {
	c.t.Helper()
	b := c.read(16)
	if be.Uint32(b) != 0x67446698 {
		c.t.Fatalf("not a simple reply: %x", b)
	}
	return be.Uint32(b[4:]), be.Uint64(b[8:])
}

// hungUp reports whether the server has closed the connection.
func (c *client) hungUp() bool {
	_, err := c.c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || err != nil && !isTimeout(err)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// fakeDevice fails or waits where a test wants it to.
type fakeDevice struct {
	disk.Device
	err     error
	gate    chan struct{} // reads below 4096 wait for it
	flushes atomic.Int64
	reading atomic.Int64
	most    atomic.Int64
}

func (d *fakeDevice) ReadAt(ctx context.Context, p []byte, off int64) error {
	if n := d.reading.Add(int64(len(p))); n > d.most.Load() {
		d.most.Store(n)
	}
	defer d.reading.Add(-int64(len(p)))
	if d.gate != nil && off < 4096 {
		<-d.gate
	}
	if d.err != nil {
		return d.err
	}
	return d.Device.ReadAt(ctx, p, off)
}

func (d *fakeDevice) WriteAt(ctx context.Context, p []byte, off int64) error {
	if d.err != nil {
		return d.err
	}
	return d.Device.WriteAt(ctx, p, off)
}

func (d *fakeDevice) Flush(ctx context.Context) error {
	d.flushes.Add(1)
	if d.err != nil {
		return d.err
	}
	return d.Device.Flush(ctx)
}

func TestRequestsThatAreRefused(t *testing.T) {
	c := dial(t, serve(t, export(newDisk(t))))
	block := make([]byte, 4096)
	for name, x := range map[string]struct {
		flags, cmd uint16
		off        uint64
		length     uint32
		payload    []byte
		want       uint32
	}{
		"read past the end":     {0, 0, diskSize - 1, 2, nil, eInval},
		"read far past the end": {0, 0, 1 << 63, 2, nil, eInval},
		"read of nothing":       {0, 0, 0, 0, nil, eInval},
		"read too large":        {0, 0, 0, 33 << 20, nil, eInval},
		"read with DF":          {4, 0, 0, 1, nil, eInval}, // without structured replies
		"write past the end":    {0, 1, diskSize - 4095, 4096, block, eNoSpace},
		"write unknown flag":    {1 << 9, 1, 0, 4096, block, eInval},
		"zero past the end":     {0, 6, diskSize, 1, nil, eNoSpace},
		"fast zero, no hole":    {2 | 16, 6, 0, 4096, nil, eNotSup},
		"trim past the end":     {0, 4, diskSize, 1, nil, eInval},
		"flush of a range":      {0, 3, 0, 1, nil, eInval},
		"status unnegotiated":   {0, 7, 0, 1, nil, eInval},
		"unknown command":       {0, 99, 0, 1, nil, eInval},
	} {
		c.request(x.flags, x.cmd, 7, x.off, x.length, x.payload)
		if got, handle := c.answer(); got != x.want || handle != 7 {
			t.Errorf("%s: error %d, want %d (handle %d)", name, got, x.want, handle)
		}
	}
	c.request(0, 1, 8, 0, 4096, block) // and the connection is still good
	if got, _ := c.answer(); got != 0 {
		t.Errorf("a good write after that: error %d", got)
	}
	c.request(0, 1, 9, 0, 64<<20, nil) // whoever announces this much is beyond help
	if !c.hungUp() {
		t.Error("a write of 64 MiB was not cut off")
	}
}

func TestDeviceErrors(t *testing.T) {
	dev := &fakeDevice{Device: newDisk(t)}
	c := dial(t, serve(t, export(dev)))
	for _, x := range []struct {
		err  error
		want uint32
	}{
		{errs.New(errs.Unavailable, "x"), eIO}, {errs.New(errs.Corrupt, "x"), eIO},
		{errors.New("x"), eIO},
		{errs.New(errs.Exhausted, "x"), eNoSpace}, {errs.New(errs.Fenced, "x"), eShutdown},
		{errs.New(errs.Denied, "x"), ePerm}, {errs.New(errs.Invalid, "x"), eInval},
	} {
		dev.err = x.err
		for _, cmd := range []uint16{0, 1, 3} {
			length, payload := uint32(512), []byte(nil)
			if cmd == 3 {
				length = 0
			}
			if cmd == 1 {
				payload = make([]byte, length)
			}
			c.request(0, cmd, 1, 0, length, payload)
			if got, _ := c.answer(); got != x.want {
				t.Errorf("%v of command %d: error %d, want %d", x.err, cmd, got, x.want)
			}
		}
	}
}

// TestForcedWritesFlush holds FUA to its word, for every command that it means something for.
func TestForcedWritesFlush(t *testing.T) {
	dev := &fakeDevice{Device: newDisk(t)}
	c := dial(t, serve(t, export(dev)))
	for i, x := range []struct {
		flags, cmd uint16
		want       int64
	}{{0, 1, 0}, {1, 1, 1}, {1, 4, 2}, {1, 6, 3}, {0, 6, 3}, {0, 3, 4}, {1, 0, 4}} {
		length, payload := uint32(4096), []byte(nil)
		if x.cmd == 1 {
			payload = make([]byte, length)
		}
		if x.cmd == 3 {
			length = 0
		}
		c.request(x.flags, x.cmd, 1, 0, length, payload)
		if got, _ := c.answer(); got != 0 {
			t.Fatalf("%d: error %d", i, got)
		}
		if x.cmd == 0 {
			c.read(4096)
		}
		if got := dev.flushes.Load(); got != x.want {
			t.Errorf("%d: %d flushes, want %d", i, got, x.want)
		}
	}
}

// TestRequestsRunSideBySide answers a quick read while a slow one waits.
func TestRequestsRunSideBySide(t *testing.T) {
	dev := &fakeDevice{Device: newDisk(t), gate: make(chan struct{})}
	c := dial(t, serve(t, export(dev)))
	c.request(0, 0, 1, 0, 512, nil)
	c.request(0, 0, 2, 8192, 512, nil)
	if _, handle := c.answer(); handle != 2 {
		t.Fatalf("request %d was answered first", handle)
	}
	c.read(512)
	close(dev.gate)
	if _, handle := c.answer(); handle != 1 {
		t.Fatalf("request %d was answered second", handle)
	}
}

// TestMemoryIsBounded sends more than may be under way and never takes an answer.
func TestMemoryIsBounded(t *testing.T) {
	dev := &fakeDevice{Device: newDisk(t), gate: make(chan struct{})}
	cfg := export(dev)
	cfg.ConnMemory = 40 << 20
	s := serve(t, cfg)
	c := dial(t, s)
	for i := range uint64(50) {
		c.request(0, 0, i, 0, 4<<20, nil)
	}
	for end := time.Now().Add(10 * time.Second); dev.reading.Load() < 36<<20; time.Sleep(
		time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d bytes are being read", dev.reading.Load())
		}
	}
	close(dev.gate)
	c.read(16 + 4<<20)
	c.c.Close()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if most := dev.most.Load(); most > 40<<20 {
		t.Errorf("%d bytes were being read at a time", most)
	}
}

// TestTheEnd: what is under way when the server is told to end is answered, what comes after is
// refused.
func TestTheEnd(t *testing.T) {
	dev := &fakeDevice{Device: newDisk(t), gate: make(chan struct{})}
	cfg := export(dev)
	cfg.Grace = time.Second
	s := serve(t, cfg)
	c := dial(t, s)
	idle := dial(t, s)
	c.request(0, 0, 1, 0, 512, nil)
	for end := time.Now().Add(10 * time.Second); dev.reading.Load() == 0 &&
		time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	done := make(chan error, 1)
	go func() { done <- s.stop() }()
	var got uint32
	for i := uint64(2); got == 0; i++ { // until the server has noticed
		c.request(0, 0, i, 8192, 512, nil)
		if got, _ = c.answer(); got == 0 {
			c.read(512)
		}
	}
	if got != eShutdown {
		t.Errorf("a late request: error %d, want %d", got, eShutdown)
	}
	close(dev.gate)
	if got, handle := c.answer(); got != 0 || handle != 1 {
		t.Errorf("the early request: error %d (handle %d)", got, handle)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !idle.hungUp() {
		t.Error("an idle client is still connected")
	}
}

// TestBadNegotiations hangs up on what can't be understood, and goes on where it can be said.
func TestBadNegotiations(t *testing.T) {
	cfg := export(newDisk(t))
	cfg.Handshake = 300 * time.Millisecond
	s := serve(t, cfg)
	for name, send := range map[string]func(c *client){
		"garbage":        func(c *client) { c.write(bytes.Repeat([]byte{0x5a}, 64)) },
		"silence":        func(*client) {},
		"unknown export": func(c *client) { c.option(1, []byte("none")) },
		"abort":          func(c *client) { c.option(2, nil); c.optionReply() },
		"endless haggling": func(c *client) {
			for range 128 {
				c.option(99, nil)
				if kind, _ := c.optionReply(); kind != 1<<31|1 {
					t.Errorf("an unknown option was answered with %#x", kind)
				}
			}
		},
	} {
		c := hello(t, s)
		send(c)
		if !c.hungUp() {
			t.Errorf("%s: still connected", name)
		}
	}
	c := hello(t, s)
	for _, x := range []struct {
		opt  uint32
		data []byte
		want uint32
	}{
		{7, []byte("\x00\x00\x00\x04none\x00\x00"), 1<<31 | 6}, {7, []byte{1, 2}, 1<<31 | 3},
		{6, []byte{255, 255, 255, 255, 0, 0}, 1<<31 | 3},
		{3, []byte{1}, 1<<31 | 3}, {5, nil, 1<<31 | 1},
		{10, []byte{0, 0, 0, 0, 0, 0, 0, 1}, 1<<31 | 3}, {8, nil, 1},
		{10, []byte{0, 0, 0, 0, 255, 255, 255, 255}, 1<<31 | 3},
		{10, make([]byte, 100<<10), 1<<31 | 9},
	} {
		c.option(x.opt, x.data)
		if kind, _ := c.optionReply(); kind != x.want {
			t.Errorf("option %d with %d bytes: %#x, want %#x", x.opt, len(x.data), kind, x.want)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	cfg := export(newDisk(t))
	cfg.MaxConns = 2
	s := serve(t, cfg)
	first := dial(t, s)
	dial(t, s)
	third, err := net.Dial("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if err := third.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("a third client got an answer: %v", err)
	}
	first.request(0, 2, 0, 0, 0, nil) // DISC
	if err := third.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the third client, once there was room: %v", err)
	}
}

var _ disk.Device = (*fakeDevice)(nil)

// FuzzConnection: whatever a client sends, the server neither panics nor stays.
func FuzzConnection(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 0, 0, 6,
		0, 0, 0, 0, 0, 0,
		0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 16, 0})
	f.Add([]byte{0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 10, 0, 0, 0, 8, 0,
		0, 0, 0, 0, 0, 0, 0})
	l, err := net.Listen("unix", f.TempDir()+"/s")
	if err != nil {
		f.Fatal(err)
	}
	srv, err := nbd.New(nbd.Config{Exports: []nbd.Export{{Device: nothing{}}}}, l)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, sent []byte) {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(sent); err != nil {
			return // it has hung up already
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatal("the server neither answers nor hangs up")
		}
	})
}

// nothing is an empty device of 1 MiB that forgets.
type nothing struct{}

func (nothing) Size() int64                                  { return 1 << 20 }
func (nothing) ReadAt(context.Context, []byte, int64) error  { return nil }
func (nothing) WriteAt(context.Context, []byte, int64) error { return nil }
func (nothing) Flush(context.Context) error                  { return nil }
func (nothing) Trim(context.Context, int64, int64) error     { return nil }
func (nothing) Zero(context.Context, int64, int64) error     { return nil }
