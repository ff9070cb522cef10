package hostnet

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/v2host"
)

func TestMain(m *testing.M) {
	v2host.Main()
	tunnel.Child()
	os.Exit(m.Run())
}

// arrives sends a datagram from an address in a space, and reports whether a machine gets it.
func arrives(t *testing.T, from *space, as netip.Addr, to *machine) bool {
	t.Helper()
	var sink net.PacketConn
	to.do(func() (err error) {
		sink, err = net.ListenPacket("udp6", net.JoinHostPort(to.Address.String(), "0"))
		return err
	})
	defer sink.Close()
	// The first ones may be lost to the resolution of a neighbour.
	for range 5 {
		from.do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: as.AsSlice()}}
			conn, err := d.Dial("udp6", sink.LocalAddr().String())
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			return err
		})
		_ = sink.SetReadDeadline(time.Now().Add(dropped))
		if _, _, err := sink.ReadFrom(make([]byte, 16)); err == nil {
			return true
		}
	}
	return false
}

// routeTo sends what is for machines to a gateway, or over a link.
func (s *space) routeTo(link string, gateway netip.Addr) {
	s.t.Helper()
	s.do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(fleetPrefix()), Priority: 1}
		if gateway.IsValid() {
			r.Gw = gateway.AsSlice()
		}
		return netlink.RouteReplace(r)
	})
}

// TestForgedPacketsAreDropped: neither a host on the wire nor another worker gets a packet to a
// machine under an address that isn't its own. In the clear, the host on the wire does.
func TestForgedPacketsAreDropped(t *testing.T) {
	t.Parallel()
	for _, clear := range []bool{false, true} {
		hosts := newWire(t, 2, clear)
		_, _, m := fleetOn(t, hosts)
		stranger := newSpace(t)
		stranger.plugIn(hosts[0].lan, "x1", netip.MustParseAddr("fd00:5::66"))
		stranger.reaches(port(hosts[0].addr, 9000), "worker") // it is on the wire
		stranger.address("lo", m[4].Address.String()+"/128")
		stranger.routeTo("uplink0", hosts[0].addr)
		if got := arrives(t, stranger, m[4].Address, m[1]); got != clear {
			t.Errorf("clear %v: a stranger's packet as machine 4 arrives: %v", clear, got)
		}
		if clear {
			continue
		}
		own, another := fleet.PrivateAddress(1, 2, 99), fleet.PrivateAddress(1, 3, 99)
		for _, a := range []netip.Addr{own, another} {
			hosts[1].address("lo", a.String()+"/128")
			if got := arrives(t, hosts[1].space, a, m[1]); got != (a == own) {
				t.Errorf("a packet of worker 2 as %s arrives: %v", a, got)
			}
		}
	}
}

// TestNothingIsReadableOnTheWire looks at all that goes over the bridge while a machine is asked
// for its name.
func TestNothingIsReadableOnTheWire(t *testing.T) {
	t.Parallel()
	for _, clear := range []bool{false, true} {
		hosts := newWire(t, 2, clear)
		_, _, m := fleetOn(t, hosts)
		var tap int
		hosts[0].lan.do(func() (err error) {
			proto := int(htons(unix.ETH_P_ALL))
			tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, proto)
			return err
		})
		defer unix.Close(tap)
		m[1].reaches(port(m[4].Address, appPort), name(4))
		seen, packets := false, 0
		for buf := make([]byte, 1<<16); ; packets++ {
			n, _, err := unix.Recvfrom(tap, buf, 0)
			if err != nil {
				break
			}
			seen = seen || bytes.Contains(buf[:n], []byte(name(4)))
		}
		if packets == 0 || seen != clear {
			t.Errorf("clear %v: %d packets, the name was readable: %v", clear, packets, seen)
		}
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// TestTunnelKeysAreRenewed: peers reach each other with a new key as soon as they hear of it, and
// with the old one until then; also if the worker dies in between.
func TestTunnelKeysAreRenewed(t *testing.T) {
	t.Parallel()
	w1, w2, m := fleetOfTwo(t)
	to1, to4 := port(m[1].Address, appPort), port(m[4].Address, appPort)
	old := w1.net.Wire().Tunnel
	if fresh, err := w1.net.RenewTunnel(t.Context(), time.Hour); err != nil || fresh {
		t.Fatalf("a young key is renewed: %v, %v", fresh, err)
	}
	if fresh, err := w1.net.RenewTunnel(t.Context(), 0); err != nil || !fresh {
		t.Fatalf("%v, %v", fresh, err)
	}
	next := w1.net.Wire().Tunnel
	if next == old {
		t.Fatal("the same key")
	}
	m[4].reaches(to1, name(1)) // not told yet
	if err := w1.net.Close(); err != nil {
		t.Fatal(err)
	}
	w1.net = w1.open()
	if got := w1.net.Wire().Tunnel; got != next {
		t.Errorf("after a restart %v is offered, not %v", got, next)
	}
	if err := w1.net.TunnelOffered(t.Context(), old); err != nil { // late, from an earlier join
		t.Fatal(err)
	}
	sync(t, w1, w2, 1, 2)
	m[1].reaches(to4, name(4))
	if err := w1.net.TunnelOffered(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	sync(t, w2, w1, 2, 1)
	m[1].reaches(to4, name(4))
	m[4].reaches(to1, name(1))
}

// TestTunnelOutlivesItsDaemon: a restart of a daemon changes nothing of its tunnel; and one that
// has gone is made again.
func TestTunnelOutlivesItsDaemon(t *testing.T) {
	t.Parallel()
	w1, w2, m := fleetOfTwo(t)
	to4 := port(m[4].Address, appPort)
	m[1].reaches(to4, name(4))
	before := w1.tunnelIndex()
	if err := w1.net.Close(); err != nil {
		t.Fatal(err)
	}
	m[1].reaches(to4, name(4))
	w1.net = w1.open()
	sync(t, w1, w2, 1, 2)
	m[1].reaches(to4, name(4))
	if after := w1.tunnelIndex(); after != before || !w1.net.Intact() {
		t.Errorf("interface %d became %d; intact: %v", before, after, w1.net.Intact())
	}
	w1.do(func() error { return tunnel.Remove(TunnelLink, w1.dir) })
	if w1.net.Intact() {
		t.Error("intact without its interface")
	}
	m[1].doesNotReach(to4)
	sync(t, w1, w2, 1, 2)
	m[1].reaches(to4, name(4))
}

func (h *host) tunnelIndex() (index int) {
	h.do(func() error {
		link, err := netlink.LinkByName(TunnelLink)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// TestPeersWithoutTunnel: one that has none is named, and no route leads to it; others are reached.
func TestPeersWithoutTunnel(t *testing.T) {
	t.Parallel()
	w1, w2, m := fleetOfTwo(t)
	err := w1.net.SyncPeers(t.Context(), []uint32{1, 2}, []fleet.Peer{
		{Worker: "w2", Number: 2, Address: w2.addr, Tunnel: w2.net.Wire().Tunnel},
		{Worker: "old", Number: 3, Address: netip.MustParseAddr("fd00:5::3")}})
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "old") {
		t.Errorf("%v", err)
	}
	m[1].reaches(port(m[4].Address, appPort), name(4))
	m[1].doesNotReach(port(fleet.PrivateAddress(1, 3, 1), appPort))
}

// TestLargePackets: what fits the link but not the tunnel gets through as well.
func TestLargePackets(t *testing.T) {
	t.Parallel()
	w1, _, m := fleetOfTwo(t)
	if got := w1.net.Wire().MTU; got != 1500-tunnel.Overhead {
		t.Fatalf("MTU %d", got)
	}
	big := strings.Repeat("x", 1<<20)
	m[4].serve(port(m[4].Address, appPort+1), big)
	m[1].reaches(port(m[4].Address, appPort+1), big)
}

// TestOnKernelWireGuard runs the tests of tunnels on a kernel that has WireGuard, and no TUN.
func TestOnKernelWireGuard(t *testing.T) {
	v2host.Run(t, v2host.Host{Package: "internal/hostnet",
		Run:     "^TestTunnel|^TestForged|^TestPeers|^TestKernel",
		Modules: []string{"veth", "bridge", "nf_tables", "wireguard"}})
}

// TestKernelHasTheTunnel: where the kernel has WireGuard, no process runs for it.
func TestKernelHasTheTunnel(t *testing.T) {
	if _, err := os.Stat("/sys/module/wireguard"); err != nil {
		t.Skip("needs a kernel with WireGuard; TestOnKernelWireGuard runs it on one")
	}
	w1 := newLAN(t, 1)[0]
	w1.do(func() error {
		link, err := netlink.LinkByName(TunnelLink)
		if err == nil && link.Type() != "wireguard" {
			t.Errorf("the tunnel is a %s", link.Type())
		}
		return err
	})
}
