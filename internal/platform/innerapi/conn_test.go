package innerapi

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	at := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"}
	l, err := net.ListenUnix(at.Net, at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix(at.Net, nil, at); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

// TestMessagesOfAnySize: what the socket's buffer may not hold arrives all the same, and with it
// its descriptors, in their order.
func TestMessagesOfAnySize(t *testing.T) {
	for _, size := range []int{1, maxInline - 100, maxInline + 1, MaxMessage - 100} {
		a, b := pair(t)
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("x", size)
		if err := Send(a, Request{ID: want}, null); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		var got Request
		files, err := Receive(b, &got)
		if err != nil || got.ID != want || len(files) != 1 {
			t.Fatalf("%d bytes: %d came, %d files, %v", size, len(got.ID), len(files), err)
		}
		var sent, came unix.Stat_t
		if unix.Fstat(int(null.Fd()), &sent) != nil || unix.Fstat(int(files[0].Fd()),
			&came) != nil || sent.Rdev != came.Rdev {
			t.Errorf("%d bytes: another file came", size)
		}
		closeAll(append(files, null))
	}
	a, _ := pair(t)
	err := Send(a, Request{ID: strings.Repeat("x", MaxMessage)})
	if !errs.Is(err, errs.Invalid) {
		t.Errorf("more than the most: %v", err)
	}
}

// TestOnlyFilesInMemoryAreRead: a message is read from nothing whose read might wait, and not if it
// is too large.
func TestOnlyFilesInMemoryAreRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]*os.File{r, w})
	large, err := memoryFile([]byte(strings.Repeat("x", MaxMessage+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	for what, f := range map[string]*os.File{"a pipe": r, "too much": large} {
		a, b := pair(t)
		if _, _, err := a.WriteMsgUnix([]byte(inFile), unix.UnixRights(int(f.Fd())),
			nil); err != nil {
			t.Fatal(err)
		}
		var got Request
		if _, err := Receive(b, &got); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
