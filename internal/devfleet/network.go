package devfleet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/hostnet"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
)

// ensureBridge makes the fleet's bridge with the server's address, if it isn't there.
func (l Layout) ensureBridge() error {
	name := l.Bridge()
	link, err := netlink.LinkByName(name)
	if err != nil {
		snooping := false // snooping would drop neighbour discovery until a querier shows up
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name},
			MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(bridge); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("create bridge %s: %w", name, err)
		}
		if link, err = netlink.LinkByName(name); err != nil {
			return fmt.Errorf("find bridge %s: %w", name, err)
		}
	}
	return configureLink(link, l.ServerAddress())
}

// ensureHost makes a worker's network namespace and its link on the bridge, if they aren't there.
func (l Layout) ensureHost(worker string, addr netip.Addr) error {
	if err := ensureNetns(l.Netns(worker)); err != nil {
		return err
	}
	if err := l.ensureLink(worker); err != nil {
		return err
	}
	return inNetns(l.Netns(worker), func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find loopback: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("bring up loopback: %w", err)
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("find link of worker %s: %w", worker, err)
		}
		return configureLink(eth, addr)
	})
}

func (l Layout) ensureLink(worker string) error {
	bridge, err := netlink.LinkByName(l.Bridge())
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", l.Bridge(), err)
	}
	port, err := netlink.LinkByName(l.Link(worker))
	if err != nil {
		ns, err := netns.GetFromName(l.Netns(worker))
		if err != nil {
			return fmt.Errorf("open network namespace of worker %s: %w", worker, err)
		}
		defer ns.Close()
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: l.Link(worker)}, PeerName: "eth0",
			PeerNamespace: netlink.NsFd(int(ns))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("create link of worker %s: %w", worker, err)
		}
		if port, err = netlink.LinkByName(l.Link(worker)); err != nil {
			return fmt.Errorf("find link of worker %s: %w", worker, err)
		}
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("put link of worker %s on the bridge: %w", worker, err)
	}
	return netlink.LinkSetUp(port)
}

// configureLink gives a link its address, without waiting for duplicate detection, and brings it
// up. Its link-local address, by which the kernel asks for the neighbours of what it forwards,
// doesn't wait for that either: else nothing gets from one worker to another in a fleet's first
// second or two.
func configureLink(link netlink.Link, addr netip.Addr) error {
	name := link.Attrs().Name
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"),
		0); err != nil {
		return fmt.Errorf("turn off duplicate address detection on %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, addr, err)
	}
	return nil
}

func ensureNetns(name string) error {
	if ns, err := netns.GetFromName(name); err == nil {
		return ns.Close()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer here.Close()
	ns, err := netns.NewNamed(name) // also enters it
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	defer ns.Close()
	if err := netns.Set(here); err != nil {
		return fmt.Errorf("return from network namespace %s: %w", name, err)
	}
	return nil
}

// removeHost removes a worker's namespace and links.
func (l Layout) removeHost(worker string) error {
	if ns, err := netns.GetFromName(l.Netns(worker)); err == nil {
		_ = ns.Close()
		err := inNetns(l.Netns(worker), func() error {
			return tunnel.Remove(hostnet.TunnelLink, l.workerDir(worker))
		})
		if err != nil {
			return err
		}
	}
	if link, err := netlink.LinkByName(l.Link(worker)); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove link of worker %s: %w", worker, err)
		}
	}
	name := l.Netns(worker)
	if _, err := os.Stat("/run/netns/" + name); err != nil {
		return nil
	}
	if err := netns.DeleteNamed(name); err != nil {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

func (l Layout) removeBridge() error {
	link, err := netlink.LinkByName(l.Bridge())
	if err != nil {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove bridge %s: %w", l.Bridge(), err)
	}
	return nil
}

// setPort brings a worker's port on the bridge up or down: the cable.
func (l Layout) setPort(worker string, up bool) error {
	link, err := netlink.LinkByName(l.Link(worker))
	if err != nil {
		return fmt.Errorf("find link of worker %s: %w", worker, err)
	}
	if up {
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
}
