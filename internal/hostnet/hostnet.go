package hostnet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var _ fleet.HostNet = (*Net)(nil)

// LinkPrefix is what the names of all VM links begin with. No other interface of the host may.
const LinkPrefix = "vm"

// Config is what a Net needs.
type Config struct {
	// Address is the worker's underlay address, which other workers route to.
	Address netip.Addr
	// Underlay is the interface with that address; "" finds it.
	Underlay string
	// Tunnel encrypts what machines on different workers send to each other; nil: it goes in the
	// clear, and whoever is on the underlay can read and forge it. Name and MTU are set here.
	Tunnel *tunnel.Config
	// Rate is how many bytes a second a VM's link may send to other machines; 0: there is no bound.
	Rate   int64
	Logger *slog.Logger
}

// Net is a worker's network. Safe for concurrent use; operations wait for each other.
type Net struct {
	cfg   Config
	nl    *netlink.Handle
	nft   *nftables.Conn
	sem   chan struct{} // guards the other fields; its one token is taken by lock
	links map[fleet.MachineID]fleet.MachineLink
	stale bool // the kernel's rules may not be what links says
	// tunnel is nil where packets go in the clear.
	tunnel *tunnel.Tunnel
	mtu    int // of machines' packets; 0: as their links have it
}

// New returns the network of the calling thread's namespace, which it takes over: it switches on
// forwarding, and installs the rules if they are missing. Rules of an earlier daemon stay as they
// are until Restore.
func New(cfg Config) (_ *Net, err error) {
	n := &Net{cfg: cfg, sem: make(chan struct{}, 1),
		links: map[fleet.MachineID]fleet.MachineLink{}}
	n.sem <- struct{}{}
	if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, errs.Wrap(errs.Unsupported, err, "open routing socket")
	}
	if n.nft, err = nftables.New(nftables.AsLasting()); err != nil {
		n.nl.Close()
		return nil, errs.Wrap(errs.Unsupported, err, "open nftables socket")
	}
	if err := n.takeOver(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Net) takeOver() error {
	if err := n.findUnderlay(); err != nil {
		return err
	}
	if err := setSysctls(n.cfg.Underlay); err != nil {
		return err
	}
	raised, err := raise(NeighbourBounds())
	for _, b := range raised {
		n.cfg.Logger.Info("raised a bound of this host's", "setting", b.Name, "to", b.Least)
	}
	if err != nil {
		return err
	}
	if err := n.openTunnel(); err != nil {
		return err
	}
	tables, err := n.nft.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return errs.Wrap(errs.Unsupported, err,
			"list nftables").WithRemedy("load the kernel's nf_tables")
	}
	present := false
	for _, t := range tables {
		present = present || t.Name == tableName
	}
	if !present {
		if err := n.rebuild(); err != nil {
			return err
		}
	}
	return n.closeUnrouted()
}

// findUnderlay checks the underlay's name, or finds it by the worker's address.
func (n *Net) findUnderlay() error {
	if n.cfg.Underlay == "" {
		addrs, err := n.nl.AddrList(nil, netlink.FAMILY_V6)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "list addresses")
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			if ip != n.cfg.Address.WithZone("") {
				continue
			}
			link, err := n.nl.LinkByIndex(a.LinkIndex)
			if err != nil {
				return errs.Wrap(errs.Internal, err, "find the interface with %s", ip)
			}
			n.cfg.Underlay = link.Attrs().Name
		}
	}
	switch {
	case n.cfg.Underlay == "":
		return errs.New(errs.Invalid, "no interface has the worker's address %s", n.cfg.Address).
			WithRemedy("give the worker an address of this host")
	case strings.HasPrefix(n.cfg.Underlay, LinkPrefix):
		return errs.New(errs.Invalid, "interface %s bears a name that is for VM links",
			n.cfg.Underlay).
			WithRemedy("rename it so that it doesn't begin with %q", LinkPrefix)
	}
	return nil
}

// Close closes the sockets. The network stays as it is.
func (n *Net) Close() error {
	err := n.closeTunnel()
	n.nl.Close()
	return errors.Join(err, n.nft.CloseLasting())
}

// lock takes the semaphore, or fails when ctx ends.
func (n *Net) lock(ctx context.Context) error {
	select {
	case <-n.sem:
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, context.Cause(ctx), "wait for the host's network")
	}
}

func (n *Net) unlock() { n.sem <- struct{}{} }

// AddMachine lets a machine use its network over a link, and routes its address there. For a known
// machine it replaces the link and address. NotFound: the link doesn't exist.
func (n *Net) AddMachine(ctx context.Context, m fleet.MachineLink) error {
	if err := checkLink(m); err != nil {
		return err
	}
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	var gone []fleet.MachineLink
	// also the machine that had this link or address before and wasn't removed
	for id, old := range n.links {
		if old != m && (id == m.Machine || old.Interface == m.Interface ||
			old.Address == m.Address) {
			gone = append(gone, old)
			delete(n.links, id)
		}
	}
	n.links[m.Machine] = m
	if err := n.change([]fleet.MachineLink{m}, gone); err != nil {
		return err
	}
	for _, old := range gone {
		if old.Address != m.Address {
			if err := n.deleteMachineRoute(old); err != nil {
				return err
			}
		}
	}
	return n.addMachineRoute(m)
}

// checkLink refuses what would break isolation: an address outside the machine's network, or a link
// of the host.
func checkLink(m fleet.MachineLink) error {
	if m.Machine == "" || !fleet.NetworkPrefix(m.NetworkID).Contains(m.Address) {
		return errs.New(errs.Invalid, "machine %q: address %s isn't in network %d", m.Machine,
			m.Address, m.NetworkID)
	}
	if !strings.HasPrefix(m.Interface, LinkPrefix) || len(m.Interface) >= unix.IFNAMSIZ {
		return errs.New(errs.Invalid, "machine %s: %q isn't a VM's link", m.Machine, m.Interface)
	}
	return nil
}

// RemoveMachine removes a machine's route and rights. An unknown machine is no error.
func (n *Net) RemoveMachine(ctx context.Context, id fleet.MachineID) error {
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	m, known := n.links[id]
	if !known {
		if n.stale {
			return n.change(nil, nil)
		}
		return nil
	}
	if err := n.deleteMachineRoute(m); err != nil {
		return err
	}
	delete(n.links, id)
	return n.change(nil, []fleet.MachineLink{m})
}

// Restore makes the machines on this host be those in links, whatever was there before: in one
// transaction for the rules, and then for each route. A link that has gone is skipped: its VM has
// ended.
func (n *Net) Restore(ctx context.Context, links []fleet.MachineLink) error {
	want := make(map[fleet.MachineID]fleet.MachineLink, len(links))
	for _, m := range links {
		if err := checkLink(m); err != nil {
			return err
		}
		want[m.Machine] = m
	}
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	n.links = want
	if err := n.rebuild(); err != nil {
		return err
	}
	routes, err := n.ownRoutes(128)
	if err != nil {
		return err
	}
	for _, m := range want {
		delete(routes, netip.PrefixFrom(m.Address, 128))
		if err := n.addMachineRoute(m); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	return n.deleteRoutes(routes)
}

// SyncPeers routes every network's addresses on other workers to these workers, and removes such
// routes that are not wanted any more. In the clear, peers must be on the underlay's link.
// Unavailable: a peer has no tunnel, while this worker has one; the others are reached.
func (n *Net) SyncPeers(ctx context.Context, networks []uint32, peers []fleet.Peer) error {
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	var others []fleet.Peer
	for _, p := range peers {
		if p.Address != n.cfg.Address {
			others = append(others, p)
		}
	}
	if n.tunnel != nil {
		return n.syncTunnel(networks, others)
	}
	link, err := n.nl.LinkByName(n.cfg.Underlay)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "find underlay %s", n.cfg.Underlay)
	}
	return n.syncRoutes(networks, others, link.Attrs().Index,
		func(p fleet.Peer) net.IP { return p.Address.AsSlice() })
}

// change adds and removes machines' rights in one transaction. If the last one failed, or the
// kernel's sets aren't as expected, it replaces all rules instead.
func (n *Net) change(added, gone []fleet.MachineLink) error {
	if n.stale {
		return n.rebuild()
	}
	err := n.changeSets(added, gone)
	if errors.Is(err, unix.ENOENT) {
		n.cfg.Logger.Warn("rules were changed by somebody else; making them anew", "error", err)
		return n.rebuild()
	}
	if err != nil {
		n.stale = true
		return errs.Wrap(errs.Internal, err, "change the rules of %d machines",
			len(added)+len(gone))
	}
	return nil
}

// ipNet is prefix for netlink.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// fromIPNet is the reverse; not ok for what isn't a plain prefix.
func fromIPNet(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits), ok
}
