package listen_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/x/listen"
)

// TestASocketWithACopy: a copy of a listening socket, as a process has that is being forked, keeps
// nobody away once it is closed.
func TestASocketWithACopy(t *testing.T) {
	first, err := listen.TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	held, err := first.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	var g errgroup.Group
	g.Go(func() error {
		time.Sleep(100 * time.Millisecond)
		return held.Close()
	})
	second, err := listen.TCP(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := listen.TCP(ctx, address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address in use: %v", err)
	}
	if _, err := listen.TCP(t.Context(), "127.0.0.1:port"); err == nil ||
		errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("no address at all: %v", err)
	}
}
