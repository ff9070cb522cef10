package sandbox

import (
	"errors"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// addrGenNone keeps the kernel from adding a link-local address of its own choice to a link.
const addrGenNone = 1

// linkName names the worker's end of a VM's link: short enough for an interface, and unique on the worker.
func linkName(id fleet.VMID) string { return "vm" + string(id) }

// createLink joins this thread's network namespace to that of pid by a pair of links, and brings up this end.
func createLink(name string, pid int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: guestapi.LinkName, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return errs.Wrap(errs.Internal, err, "create link %s", name)
	}
	return bringUp(name, guestapi.HostLinkIP)
}

// bringUp gives a link its one address, usable at once: nobody else can be on a point-to-point link.
func bringUp(name, ip string) error {
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

// loopbackUp brings up the loopback, which gets its addresses by itself.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "bring up the loopback")
	}
	return nil
}

// deleteLink removes a link, and with it its other end.
func deleteLink(name string) error {
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
