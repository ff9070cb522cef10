package gateway

import (
	"context"
	"net"
	"strconv"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/listen"
)

// Listen opens the gateway's port on the worker's end of a VM's link, and on no other. It waits as
// long as listen.TCP does: a new link's address isn't usable at once.
func Listen(ctx context.Context, link string) (net.Listener, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "find link %s for the store gateway", link)
	}
	// By index: package net caches the indices of names for up to a minute.
	host := guestapi.HostLinkIP + "%" + strconv.Itoa(iface.Index)
	l, err := listen.TCP(ctx, net.JoinHostPort(host, strconv.Itoa(guestapi.GatewayPort)))
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "open the store gateway on link %s", link)
	}
	return l, nil
}
