//go:build bench

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
)

const (
	wireRounds = 9
	wireBytes  = 256 << 20 // of each round
	pings      = 2000      // of each round
	pingBytes  = 64
	wireLink   = "wg0"
	wireMTU    = 1500
)

// wireEnd is one of two hosts, in a namespace of its own.
type wireEnd struct {
	ns            netns.NsHandle
	plain, inside netip.Addr
	dir           string
	tunnel        *tunnel.Tunnel
}

// TestCostOfTheWire prints what machine-to-machine traffic gets through the tunnel, beside the same
// pair of hosts in the clear: the throughput of one TCP connection, and the time of a packet there
// and back. It fails by no figure.
func TestCostOfTheWire(t *testing.T) {
	a, b := wirePair(t)
	ways := []string{"tunnel", "plain"}
	to := map[string]netip.Addr{"tunnel": b.inside, "plain": b.plain}
	rates, rounds := make([][]float64, 2), make([][]float64, 2)
	for n := range 2 * wireRounds {
		i := (n + n/2) % 2 // each is first as often as the other
		rates[i] = append(rates[i], stream(t, a, b, to[ways[i]]))
		rounds[i] = append(rounds[i], pingPong(t, a, b, to[ways[i]]))
	}
	for _, row := range []struct {
		what   string
		values [][]float64
	}{{"one TCP connection, MiB/s", rates}, {"64 bytes there and back, µs", rounds}} {
		median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
		through, plain := median(row.values[0]), median(row.values[1])
		fmt.Printf("RESULT %s: tunnel %.1f, plain %.1f, n=%d, ratio %.3f\n", row.what, through,
			plain, wireRounds, through/plain)
	}
}

// wirePair makes two hosts with a link, and a tunnel over it.
func wirePair(t *testing.T) (a, b *wireEnd) {
	t.Helper()
	a, b = newWireEnd(t, 1), newWireEnd(t, 2)
	in(t, a.ns, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "eth0", wireMTU
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0",
			PeerNamespace: netlink.NsFd(int(b.ns))})
	})
	for _, e := range []*wireEnd{a, b} {
		in(t, e.ns, func() error { return e.open() })
		t.Cleanup(func() {
			in(t, e.ns, func() error {
				return errors.Join(e.tunnel.Close(), tunnel.Remove(wireLink, e.dir))
			})
		})
	}
	for _, pair := range [][2]*wireEnd{{a, b}, {b, a}} {
		e, peer := pair[0], pair[1]
		in(t, e.ns, func() error {
			_, err := e.tunnel.Sync([]tunnel.Peer{{Key: peer.tunnel.PublicKey(),
				At:      netip.AddrPortFrom(peer.plain, tunnel.DefaultPort),
				Allowed: []netip.Prefix{netip.PrefixFrom(peer.inside, 128)}}})
			return err
		})
	}
	return a, b
}

func newWireEnd(t *testing.T, n int) *wireEnd {
	t.Helper()
	e := &wireEnd{dir: filepath.Clean(t.TempDir()),
		plain:  netip.MustParseAddr(fmt.Sprintf("fd00:9::%d", n)),
		inside: netip.MustParseAddr(fmt.Sprintf("fdaa:9::%d", n))}
	if err := onThread(func() (err error) {
		e.ns, err = netns.New()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.ns.Close() })
	return e
}

// open gives the end its addresses, and its side of the tunnel.
func (e *wireEnd) open() error {
	nl, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	if err := address(nl, "eth0", e.plain); err != nil {
		return err
	}
	e.tunnel, err = tunnel.Open(tunnel.Config{Name: wireLink, Dir: e.dir,
		Port: tunnel.DefaultPort, MTU: wireMTU - tunnel.Overhead, Now: time.Now}, nl)
	if err != nil {
		return err
	}
	return address(nl, wireLink, e.inside)
}

func address(nl *netlink.Handle, name string, at netip.Addr) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return err
	}
	return errors.Join(nl.LinkSetUp(link), nl.AddrAdd(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: at.AsSlice(), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD}))
}

// onThread runs f on a thread that ends with it, whatever namespace it is in then.
func onThread(f func() error) error {
	var g errgroup.Group
	g.Go(func() error {
		runtime.LockOSThread()
		return f()
	})
	return g.Wait()
}

func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	err := onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// talk connects the two ends at an address of b's, and runs both sides.
func talk(t *testing.T, a, b *wireEnd, at netip.Addr, client, server func(net.Conn) error) {
	t.Helper()
	var l net.Listener
	in(t, b.ns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	defer l.Close()
	var g errgroup.Group
	g.Go(func() error {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		return server(c)
	})
	var c net.Conn
	in(t, a.ns, func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		return err
	})
	err := errors.Join(c.SetDeadline(time.Now().Add(2*time.Minute)), client(c))
	if err = errors.Join(err, c.Close(), g.Wait()); err != nil {
		t.Fatal(err)
	}
}

// stream returns the MiB/s of one connection.
func stream(t *testing.T, a, b *wireEnd, at netip.Addr) (rate float64) {
	t.Helper()
	talk(t, a, b, at, func(c net.Conn) error {
		chunk := make([]byte, 1<<20)
		began := time.Now()
		for sent := 0; sent < wireBytes; sent += len(chunk) {
			if _, err := c.Write(chunk); err != nil {
				return err
			}
		}
		var got [8]byte
		if _, err := io.ReadFull(c, got[:]); err != nil {
			return err
		}
		if n := binary.BigEndian.Uint64(got[:]); n != wireBytes {
			return fmt.Errorf("%d bytes have come", n)
		}
		rate = wireBytes / (1 << 20) / time.Since(began).Seconds()
		return nil
	}, func(c net.Conn) error {
		// Read, and not spliced: as a program of a machine gets it.
		n, buf := 0, make([]byte, 1<<20)
		for n < wireBytes {
			m, err := c.Read(buf)
			if err != nil {
				return err
			}
			n += m
		}
		return binary.Write(c, binary.BigEndian, uint64(n))
	})
	return rate
}

// pingPong returns the µs of a packet there and back.
func pingPong(t *testing.T, a, b *wireEnd, at netip.Addr) (us float64) {
	t.Helper()
	echo := func(c net.Conn, first bool) error {
		buf := make([]byte, pingBytes)
		for range pings {
			if first {
				if _, err := c.Write(buf); err != nil {
					return err
				}
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				return err
			}
			if !first {
				if _, err := c.Write(buf); err != nil {
					return err
				}
			}
		}
		return nil
	}
	talk(t, a, b, at, func(c net.Conn) error {
		began := time.Now()
		err := echo(c, true)
		us = float64(time.Since(began).Microseconds()) / pings
		return err
	}, func(c net.Conn) error { return echo(c, false) })
	return us
}
