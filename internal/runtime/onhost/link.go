package onhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// addrGenNone keeps the kernel from adding a link-local address of its own choice to a link.
const addrGenNone = 1

// LinkName names the worker's end of a VM's link: short enough for an interface, and unique on the
// worker.
func LinkName(id fleet.VMID) string { return "vm" + string(id) }

// BringUp gives a link its only address, without duplicate detection: no third party can be on a
// point-to-point link.
func BringUp(name, ip string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "find link %s", name)
	}
	if err := netlink.LinkSetIP6AddrGenMode(link, addrGenNone); err != nil {
		return errs.Wrap(errs.Internal, err, "keep link %s from choosing an address", name)
	}
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD,
	}
	if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return errs.Wrap(errs.Internal, err, "give link %s address %s", name, ip).
			WithRemedy("sysctl net.ipv6.conf.default.disable_ipv6=0")
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return errs.Wrap(errs.Internal, err, "bring up link %s", name)
	}
	return nil
}

// Hardware addresses of the two ends of a VM's link: no third party can be on it, so they are the
// same for all.
const (
	HostLinkMAC  = "52:54:00:00:00:01"
	GuestLinkMAC = "52:54:00:00:00:02"
)

// HardwareAddr returns the bytes of one of them.
func HardwareAddr(mac string) net.HardwareAddr {
	parsed, _ := net.ParseMAC(mac) // the empty one leaves the choice to the kernel
	return parsed
}

// PinPeer has the kernel know for ever who is at the other end of a link. All that share a kernel
// share its table of neighbours, and a machine can fill it: what is pinned has a place in it all
// the same.
func PinPeer(name, ip, mac string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "find link %s", name)
	}
	peer := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET6,
		State: unix.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: HardwareAddr(mac)}
	if err := netlink.NeighSet(peer); err != nil {
		return errs.Wrap(errs.Internal, err, "note who is at the other end of link %s", name)
	}
	return nil
}

// LoopbackUp brings up the loopback, which gets its addresses by itself.
func LoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "bring up the loopback")
	}
	return nil
}

// DeleteLink removes a link, and with it its other end.
func DeleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	// The other end may have gone with its namespace between the two calls.
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return errs.Wrap(errs.Internal, err, "delete link %s", name)
	}
	return nil
}

// Dial connects to a port of a VM over its link. It fails when alive ends, because without the VM
// the link would keep it waiting. It names the link by its index: all VMs have the same address,
// and package net caches the indices of names for up to a minute.
func Dial(ctx, alive context.Context, linkName string, port int) (net.Conn, error) {
	link, err := netlink.LinkByName(linkName)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", linkName, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(alive, cancel)()
	host := guestapi.GuestLinkIP + "%" + strconv.Itoa(link.Attrs().Index)
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp6", net.JoinHostPort(host, strconv.Itoa(port)))
}
