// Package listen opens listening TCP sockets that a process killed just now had.
//
// Such a socket belongs to the open file, of which a process that is being forked has a copy until
// it runs its program (see package filelock). On a busy host that takes a while.
package listen

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/internal/x/backoff"
)

// Patience is how long an address may be in use, or not be usable yet, before that is an error.
const Patience = 5 * time.Second

const retry = 5 * time.Millisecond

// TCP listens on an address, and waits at most Patience for one that is in use, or that its
// interface has only just got: an IPv6 address is looked for on the link before it can be used.
// The error is that of the last attempt; errors.Is finds its cause, a syscall.Errno.
func TCP(ctx context.Context, address string) (net.Listener, error) {
	deadline := time.Now().Add(Patience)
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err == nil {
			return l, nil
		}
		passing := errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
		if !passing || time.Now().After(deadline) || backoff.Sleep(ctx, retry) != nil {
			return nil, err
		}
	}
}
