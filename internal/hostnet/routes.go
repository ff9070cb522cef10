package hostnet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// routeProtocol marks our routes among the host's.
const routeProtocol netlink.RouteProtocol = 83

// fleetPrefix holds the private addresses of all networks.
func fleetPrefix() netip.Prefix {
	return netip.PrefixFrom(fleet.NetworkPrefix(0).Addr(), 16)
}

func ownRoute(dst netip.Prefix, link int) *netlink.Route {
	return &netlink.Route{Dst: ipNet(dst), LinkIndex: link, Protocol: routeProtocol,
		Table: unix.RT_TABLE_MAIN}
}

// setSysctls makes the host a router, and new links ones that don't listen to other routers.
func setSysctls(underlay string) error {
	const dir = "/proc/sys/net/ipv6/conf"
	// By default a router ignores router advertisements, on which the underlay may depend.
	ra := filepath.Join(dir, underlay, "accept_ra")
	if b, err := os.ReadFile(ra); err == nil && strings.TrimSpace(string(b)) == "1" {
		if err := os.WriteFile(ra, []byte("2"), 0); err != nil {
			return errs.Wrap(errs.Unsupported, err, "keep router advertisements on %s", underlay)
		}
	}
	for _, s := range []struct{ name, value string }{
		{"default/accept_ra", "0"}, {"default/accept_redirects", "0"},
		{"all/accept_redirects", "0"},
		{"default/accept_source_route", "-1"}, {"all/accept_source_route", "-1"},
		{"all/forwarding", "1"},
	} {
		if err := os.WriteFile(filepath.Join(dir, s.name), []byte(s.value), 0); err != nil {
			return errs.Wrap(errs.Unsupported, err, "set net.ipv6.conf.%s", s.name).
				WithRemedy("run as root")
		}
	}
	return nil
}

// closeUnrouted rejects packets to addresses of machines that are nowhere. Otherwise they would
// leave by the default route.
func (n *Net) closeUnrouted() error {
	r := ownRoute(fleetPrefix(), 0)
	r.Type = unix.RTN_UNREACHABLE
	r.Priority = 1 << 16
	if err := n.nl.RouteReplace(r); err != nil {
		return errs.Wrap(errs.Internal, err, "close %s", fleetPrefix())
	}
	return nil
}

func (n *Net) addMachineRoute(m fleet.MachineLink) error {
	link, err := n.nl.LinkByName(m.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return errs.Wrap(errs.NotFound, err, "link %s of machine %s", m.Interface, m.Machine)
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "find link %s", m.Interface)
	}
	r := ownRoute(netip.PrefixFrom(m.Address, 128), link.Attrs().Index)
	r.Gw = net.ParseIP(guestapi.GuestLinkIP)
	if err := n.nl.RouteReplace(r); err != nil {
		return errs.Wrap(errs.Internal, err, "route %s to %s", m.Address, m.Interface)
	}
	return nil
}

// deleteMachineRoute removes a machine's route. Without its link the kernel has removed it already.
func (n *Net) deleteMachineRoute(m fleet.MachineLink) error {
	link, err := n.nl.LinkByName(m.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "find link %s", m.Interface)
	}
	err = n.nl.RouteDel(ownRoute(netip.PrefixFrom(m.Address, 128), link.Attrs().Index))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return errs.Wrap(errs.Internal, err, "remove route of %s", m.Address)
	}
	return nil
}

// ownRoutes returns our routes to prefixes of one length.
func (n *Net) ownRoutes(bits int) (map[netip.Prefix]netlink.Route, error) {
	filter := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}
	all, err := n.nl.RouteListFiltered(netlink.FAMILY_V6, filter,
		netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "list routes")
	}
	routes := map[netip.Prefix]netlink.Route{}
	for _, r := range all {
		if p, ok := fromIPNet(r.Dst); ok && p.Bits() == bits {
			routes[p] = r
		}
	}
	return routes, nil
}

func (n *Net) deleteRoutes(routes map[netip.Prefix]netlink.Route) error {
	for p, r := range routes {
		if err := n.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return errs.Wrap(errs.Internal, err, "remove route %s", p)
		}
	}
	return nil
}

// syncRoutes makes the routes to peers' machines go over a link, by the gateway of each; nil: the
// link itself knows the way.
func (n *Net) syncRoutes(networks []uint32, peers []fleet.Peer, link int,
	gateway func(fleet.Peer) net.IP) error {
	routes, err := n.ownRoutes(80)
	if err != nil {
		return err
	}
	for _, peer := range peers {
		for _, network := range networks {
			prefix := fleet.WorkerPrefix(network, peer.Number)
			old, known := routes[prefix]
			delete(routes, prefix)
			r := ownRoute(prefix, link)
			r.Gw = gateway(peer)
			if known && old.Gw.Equal(r.Gw) && old.LinkIndex == link {
				continue
			}
			if err := n.nl.RouteReplace(r); err != nil {
				return errs.Wrap(errs.Internal, err, "route %s to worker %s at %s", prefix,
					peer.Worker, peer.Address)
			}
		}
	}
	return n.deleteRoutes(routes)
}
