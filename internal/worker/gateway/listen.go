package gateway

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	listenPatience = 3 * time.Second
	listenRetry    = 5 * time.Millisecond
)

// Listen opens the gateway's port on the worker's end of a VM's link, and on no other. It waits at
// most 3 s: a new link's address isn't usable at once (duplicate address detection), and a port not
// right after another worker has closed it.
func Listen(ctx context.Context, link string) (net.Listener, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "find link %s for the store gateway", link)
	}
	// By index: package net caches the indices of names for up to a minute.
	host := guestapi.HostLinkIP + "%" + strconv.Itoa(iface.Index)
	address := net.JoinHostPort(host, strconv.Itoa(guestapi.GatewayPort))
	deadline := time.Now().Add(listenPatience)
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp6", address)
		if err == nil {
			return l, nil
		}
		passing := errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
		if !passing || time.Now().After(deadline) {
			return nil, errs.Wrap(errs.Unavailable, err, "open the store gateway on link %s", link)
		}
		if backoff.Sleep(ctx, listenRetry) != nil {
			return nil, errs.Wrap(errs.Unavailable, ctx.Err(),
				"open the store gateway on link %s", link)
		}
	}
}
