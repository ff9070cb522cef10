package hostnet

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
)

// space is a network namespace of a test; it goes when the test ends.
type space struct {
	t      *testing.T
	handle netns.NsHandle
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{t: t}
	err := onThread(func() (err error) {
		s.handle, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() { _ = s.handle.Close() })
	s.do(func() error { return up("lo") })
	return s
}

// onThread runs f on a thread of its own, which ends with it: whatever namespace it is in then,
// nobody gets it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// try runs f in the namespace. Sockets that it makes stay there.
func (s *space) try(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.handle); err != nil {
			return err
		}
		return f()
	})
}

func (s *space) do(f func() error) {
	s.t.Helper()
	if err := s.try(f); err != nil {
		s.t.Fatal(err)
	}
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// join makes a veth pair, here in s and peer in to.
func (s *space) join(name string, to *space, peer string) {
	s.t.Helper()
	s.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return errors.Join(netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(int(to.handle)),
		}), up(name))
	})
	to.do(func() error { return up(peer) })
}

func (s *space) address(name, cidr string) {
	s.t.Helper()
	s.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		ip, n, err := net.ParseCIDR(cidr)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask},
			Flags: unix.IFA_F_NODAD})
	})
}

// host is a worker: a namespace on the LAN with a Net.
type host struct {
	*space
	net  *Net
	addr netip.Addr
	lan  *space // with the bridge br0
	dir  string // the worker's own
	// clear: machines' packets go in the clear.
	clear bool
	rate  int64 // of its VMs' links
}

// newLAN makes workers, numbered from 1, on one bridge, with tunnels between them.
func newLAN(t *testing.T, workers int) []*host { return newWire(t, workers, false) }

// newWire makes workers as newLAN, with tunnels between them or in the clear.
func newWire(t *testing.T, workers int, clear bool) []*host {
	t.Helper()
	lan := newSpace(t)
	lan.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		return errors.Join(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}), up("br0"))
	})
	var hosts []*host
	for i := range workers {
		h := &host{space: newSpace(t), lan: lan, dir: t.TempDir(), clear: clear,
			addr: netip.MustParseAddr(fmt.Sprintf("fd00:5::%d", i+1))}
		h.plugIn(lan, fmt.Sprintf("w%d", i+1), h.addr)
		h.net = h.open()
		t.Cleanup(func() { h.do(func() error { return tunnel.Remove(TunnelLink, h.dir) }) })
		hosts = append(hosts, h)
	}
	return hosts
}

// plugIn gives a space a link uplink0 to a bridge, whose port is named there.
func (s *space) plugIn(lan *space, port string, addr netip.Addr) {
	s.t.Helper()
	s.join("uplink0", lan, port)
	lan.do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
	s.address("uplink0", addr.String()+"/64")
}

// open makes a Net on the host, as its daemon does at its start.
func (h *host) open() *Net {
	h.t.Helper()
	var n *Net
	h.do(func() (err error) {
		cfg := Config{Address: h.addr, Rate: h.rate, Logger: slog.New(slog.DiscardHandler)}
		if !h.clear {
			cfg.Tunnel = &tunnel.Config{Dir: h.dir, Port: tunnel.DefaultPort, Now: time.Now}
		}
		n, err = New(cfg)
		return err
	})
	h.t.Cleanup(func() { _ = n.Close() })
	return n
}

// machine is a namespace that stands for a VM, with a machine's address.
type machine struct {
	*space
	fleet.MachineLink
}

// addVM makes a VM on the host with a machine in it, which the host's Net isn't told of yet.
func (h *host) addVM(number, network, worker uint32) *machine {
	h.t.Helper()
	m := &machine{space: newSpace(h.t), MachineLink: fleet.MachineLink{
		Machine:   fleet.MachineID(fmt.Sprintf("%014x", number)),
		NetworkID: network,
		Address:   fleet.PrivateAddress(network, worker, number),
		Interface: fmt.Sprintf("vm%08x", number),
	}}
	h.join(m.Interface, m.space, guestapi.LinkName)
	h.address(m.Interface, guestapi.HostLinkIP+"/64")
	m.address(guestapi.LinkName, guestapi.GuestLinkIP+"/64")
	m.address("lo", m.Address.String()+"/128")
	m.do(func() error {
		link, err := netlink.LinkByName(guestapi.LinkName)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Gw: net.ParseIP(guestapi.HostLinkIP),
			Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, Src: m.Address.AsSlice(),
		})
	})
	return m
}

func (h *host) add(machines ...*machine) {
	h.t.Helper()
	for _, m := range machines {
		if err := h.net.AddMachine(h.t.Context(), m.MachineLink); err != nil {
			h.t.Fatal(err)
		}
	}
}

// serve answers TCP connections on addr with name, until the test ends.
func (s *space) serve(addr, name string) {
	s.t.Helper()
	s.listen(addr, func(conn net.Conn) { _, _ = io.WriteString(conn, name) })
}

// listen has answer serve one TCP connection on addr after the other, until the test ends.
func (s *space) listen(addr string, answer func(net.Conn)) {
	s.t.Helper()
	var l net.Listener
	s.do(func() (err error) {
		l, err = net.Listen("tcp6", addr)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			_ = conn.Close()
		}
	}()
	s.t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// How long what should work may take, and after what time something counts as dropped.
const (
	patience = 5 * time.Second
	dropped  = 300 * time.Millisecond
)

// dial returns what the server at addr answers. From is the local address, or "".
func (s *space) dial(from, addr string, timeout time.Duration) (name string, err error) {
	err = s.try(func() error {
		d := net.Dialer{Timeout: timeout}
		if from != "" {
			local, err := net.ResolveTCPAddr("tcp6", from)
			if err != nil {
				return err
			}
			d.LocalAddr = local
		}
		conn, err := d.Dial("tcp6", addr)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(timeout))
		b, err := io.ReadAll(conn)
		name = string(b)
		return err
	})
	return name, err
}

func (s *space) reaches(addr, want string) {
	s.t.Helper()
	if got, err := s.dial("", addr, patience); err != nil || got != want {
		s.t.Errorf("dial %s: %q, %v; want %q", addr, got, err, want)
	}
}

func (s *space) doesNotReach(addr string) {
	s.t.Helper()
	if got, err := s.dial("", addr, dropped); err == nil {
		s.t.Errorf("dial %s: answered by %q", addr, got)
	}
}

func port(addr netip.Addr, port int) string {
	return net.JoinHostPort(addr.String(), strconv.Itoa(port))
}

// onLink is ip:port on one of the namespace's links, by its number: net keeps names in a cache of
// the whole process, which knows nothing of namespaces.
func (s *space) onLink(ip, name string, port int) string {
	s.t.Helper()
	var index int
	s.do(func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return net.JoinHostPort(ip+"%"+strconv.Itoa(index), strconv.Itoa(port))
}
