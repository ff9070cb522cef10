package inner

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// The link between the VM's root namespace and the container has link-local addresses only. So it
// is the same in every VM, and any machine's address can be routed over it.
const (
	vmSide        = "machine0" // its name in the VM
	containerSide = "eth0"     // its name in the container
	vmSideIP      = "fe80::1"
	containerIP   = "fe80::2"
)

// addLink makes the container's link, closed to all traffic until the machine's address is known.
// Idempotent.
func addLink(pid int, hostLink string) error {
	if err := forwardPackets(); err != nil {
		return err
	}
	if old, err := netlink.LinkByName(vmSide); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return fmt.Errorf("remove the last container's link: %w", err)
		}
	}
	if err := setRules(hostLink, netip.Addr{}); err != nil {
		return err
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vmSide
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: containerSide,
		PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the container's link: %w", err)
	}
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("reach the container's network: %w", err)
	}
	defer inside.Close()
	outside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("reach the network: %w", err)
	}
	defer outside.Close()
	return errors.Join(bringUp(inside, "lo", ""), bringUp(inside, containerSide, containerIP),
		bringUp(outside, vmSide, vmSideIP), pinPeers(inside, outside))
}

// pinPeers has each end of the container's link know the other for ever. Otherwise a kernel whose
// table of neighbours somebody else's machine has filled would find this one no more.
func pinPeers(inside, outside *netlink.Handle) error {
	near, err := outside.LinkByName(vmSide)
	if err != nil {
		return fmt.Errorf("find link %s: %w", vmSide, err)
	}
	far, err := inside.LinkByName(containerSide)
	if err != nil {
		return fmt.Errorf("find link %s: %w", containerSide, err)
	}
	pin := func(h *netlink.Handle, link netlink.Link, ip string, peer netlink.Link) error {
		return h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET6,
			State: unix.NUD_PERMANENT, IP: net.ParseIP(ip),
			HardwareAddr: peer.Attrs().HardwareAddr})
	}
	if err := errors.Join(pin(outside, near, containerIP, far),
		pin(inside, far, vmSideIP, near)); err != nil {
		return fmt.Errorf("note who is at the other end of the container's link: %w", err)
	}
	return nil
}

func bringUp(h *netlink.Handle, name, address string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if address != "" {
		if err := addAddress(h, link, netip.MustParseAddr(address), 64); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// addAddress adds an address without duplicate detection, which takes a second and isn't needed:
// both ends of the link are ours.
func addAddress(h *netlink.Handle, link netlink.Link, ip netip.Addr, bits int) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, 128)},
		Flags: unix.IFA_F_NODAD}
	if err := h.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", ip, link.Attrs().Name, err)
	}
	return nil
}

// setAddress gives the container the machine's address and opens the way between it and the worker,
// on which packets have at most mtu bytes. The route says so, not the link: so the machine itself
// makes its packets small enough, and nobody on the way has to tell it.
func setAddress(pid int, hostLink string, ip netip.Addr, mtu int) error {
	if !ip.IsValid() {
		return nil // a machine without a network
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("reach the container's network: %w", err)
	}
	defer inside.Close()
	outside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("reach the network: %w", err)
	}
	defer outside.Close()
	link, err := inside.LinkByName(containerSide)
	if err != nil {
		return fmt.Errorf("find the container's link: %w", err)
	}
	everything := netip.MustParsePrefix("::/0")
	return errors.Join(
		addAddress(inside, link, ip, 128),
		route(inside, containerSide, everything, vmSideIP, mtu),
		route(outside, vmSide, netip.PrefixFrom(ip, 128), containerIP, 0),
		route(outside, hostLink, everything, guestapi.HostLinkIP, 0),
		setRules(hostLink, ip),
	)
}

func route(h *netlink.Handle, linkName string, to netip.Prefix, via string, mtu int) error {
	link, err := h.LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("find link %s: %w", linkName, err)
	}
	dst := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 128)}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(via), MTU: mtu}
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s over %s: %w", to, linkName, err)
	}
	return nil
}

// forwardPackets makes the VM a router. Linux then ignores router advertisements on its links.
func forwardPackets() error {
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	return nil
}
