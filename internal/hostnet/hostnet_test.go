package hostnet

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const appPort = 8080

// fleetOfTwo is two workers; on the first are machines 1, 2 (network 1) and 3 (network 2), on the
// second 4 (network 1) and 5 (network 2). Each answers its name at appPort. Each worker serves on
// its every address.
func fleetOfTwo(t *testing.T) (w1, w2 *host, m map[int]*machine) {
	return fleetOn(t, newLAN(t, 2))
}

// fleetOn makes a fleet as fleetOfTwo of two hosts.
func fleetOn(t *testing.T, hosts []*host) (w1, w2 *host, m map[int]*machine) {
	w1, w2 = hosts[0], hosts[1]
	m = map[int]*machine{
		1: w1.addVM(1, 1, 1), 2: w1.addVM(2, 1, 1), 3: w1.addVM(3, 2, 1),
		4: w2.addVM(4, 1, 2), 5: w2.addVM(5, 2, 2),
	}
	for i, v := range m {
		v.serve(port(v.Address, appPort), name(i))
		v.serve(v.onLink(guestapi.GuestLinkIP, guestapi.LinkName, guestapi.ControlPort),
			"platform "+name(i))
	}
	for _, h := range hosts {
		h.serve("[::]:9000", "worker")
	}
	w1.add(m[1], m[2], m[3])
	w2.add(m[4], m[5])
	sync(t, w1, w2, 1, 2)
	sync(t, w2, w1, 2, 1)
	return w1, w2, m
}

func name(i int) string { return "machine " + string(rune('0'+i)) }

// sync tells w of one peer.
func sync(t *testing.T, w, peer *host, self, number uint32) {
	t.Helper()
	peers := []fleet.Peer{
		{Worker: "self", Number: self, Address: w.addr, Tunnel: w.net.Wire().Tunnel},
		{Worker: "peer", Number: number, Address: peer.addr, Tunnel: peer.net.Wire().Tunnel},
	}
	if err := w.net.SyncPeers(t.Context(), []uint32{1, 2}, peers); err != nil {
		t.Fatal(err)
	}
}

func TestMachinesReachTheirNetworkOnly(t *testing.T) {
	t.Parallel()
	w1, _, m := fleetOfTwo(t)
	for _, c := range []struct {
		from, to int
		ok       bool
	}{
		{1, 2, true}, {1, 4, true}, {4, 1, true}, {3, 5, true}, {5, 3, true},
		{1, 3, false}, {3, 1, false}, {1, 5, false}, {4, 3, false}, {5, 1, false}, {5, 4, false},
	} {
		addr := port(m[c.to].Address, appPort)
		if c.ok {
			m[c.from].reaches(addr, name(c.to))
		} else {
			m[c.from].doesNotReach(addr)
		}
	}
	// A machine that is nowhere is refused at once, not dropped, and not sent anywhere else.
	began := time.Now()
	nobody := port(fleet.PrivateAddress(1, 1, 77), appPort)
	if _, err := m[1].dial("", nobody, patience); err == nil || time.Since(began) > patience/2 {
		t.Errorf("dial nobody: %v after %v", err, time.Since(began))
	}
	w1.reaches(w1.onLink(guestapi.GuestLinkIP, m[1].Interface, guestapi.ControlPort),
		"platform "+name(1))
}

// TestSpoofedSourcesAreDropped sends datagrams, which need no answer, under other machines'
// addresses.
func TestSpoofedSourcesAreDropped(t *testing.T) {
	t.Parallel()
	_, _, m := fleetOfTwo(t)
	for _, c := range []struct {
		as, to int
		arrive bool
	}{{1, 4, true}, {2, 4, false}, {3, 5, false}, {5, 5, false}, {4, 2, false}} {
		var sink net.PacketConn
		m[c.to].do(func() (err error) {
			sink, err = net.ListenPacket("udp6", net.JoinHostPort(m[c.to].Address.String(), "0"))
			return err
		})
		if m[c.as] != m[1] {
			m[1].address("lo", m[c.as].Address.String()+"/128")
		}
		m[1].do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: m[c.as].Address.AsSlice()}}
			conn, err := d.Dial("udp6", sink.LocalAddr().String())
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("hello"))
			_ = conn.Close()
			return err
		})
		wait := dropped
		if c.arrive {
			wait = patience
		}
		_ = sink.SetReadDeadline(time.Now().Add(wait))
		_, from, err := sink.ReadFrom(make([]byte, 16))
		if arrived := err == nil; arrived != c.arrive {
			t.Errorf("machine 1 as machine %d to machine %d: %v, %v", c.as, c.to, from, err)
		}
		_ = sink.Close()
		if m[c.as] != m[1] {
			m[1].do(func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.AddrDel(lo, &netlink.Addr{
					IPNet: ipNet(netip.PrefixFrom(m[c.as].Address, 128))})
			})
		}
	}
}

func TestVMsReachNothingOfTheWorkerButTheGateway(t *testing.T) {
	t.Parallel()
	w1, w2, m := fleetOfTwo(t)
	w2.reaches(port(w1.addr, 9000), "worker")            // it does listen
	fresh, bare := w1.addVM(9, 1, 1), w1.addVM(10, 1, 1) // VMs that aren't machines yet
	for i, v := range map[string]*machine{"1": m[1], "9": fresh, "10": bare} {
		w1.serve(w1.onLink(guestapi.HostLinkIP, v.Interface, guestapi.GatewayPort), "gateway of "+i)
	}
	up := func(v *machine, port int) string {
		return v.onLink(guestapi.HostLinkIP,
			guestapi.LinkName, port)
	}
	m[1].reaches(up(m[1], guestapi.GatewayPort), "gateway of 1")
	fresh.reaches(up(fresh, guestapi.GatewayPort), "gateway of 9")
	m[2].doesNotReach(up(m[2], guestapi.GatewayPort)) // has none: others' aren't for it
	for _, addr := range []string{port(w1.addr, 9000), port(w2.addr, 9000), up(m[1], 9000)} {
		m[1].doesNotReach(addr)
	}
	// Nor by looking like an answer of the platform.
	bare.reaches(up(bare, guestapi.GatewayPort), "gateway of 10")
	from := bare.onLink(guestapi.GuestLinkIP, guestapi.LinkName, guestapi.ControlPort)
	if got, err := bare.dial(from, up(bare, 9000), dropped); err == nil {
		t.Errorf("from the platform's port: %q", got)
	}
	fresh.doesNotReach(port(m[1].Address, appPort))
	fresh.doesNotReach(port(m[4].Address, appPort))
}

func TestRemoveAndRestore(t *testing.T) {
	t.Parallel()
	w1, w2, m := fleetOfTwo(t)
	to1, to2, to4 := port(m[1].Address, appPort), port(m[2].Address, appPort),
		port(m[4].Address, appPort)
	for range 2 {
		if err := w1.net.RemoveMachine(t.Context(), m[1].Machine); err != nil {
			t.Fatal(err)
		}
	}
	m[4].doesNotReach(to1)
	m[1].doesNotReach(to4)
	m[4].reaches(to2, name(2))
	w1.add(m[1], m[1])
	m[4].reaches(to1, name(1))

	// A restarted daemon changes nothing, until it says what there is.
	if err := w1.net.Close(); err != nil {
		t.Fatal(err)
	}
	w1.net = w1.open()
	m[4].reaches(to1, name(1))
	gone := fleet.MachineLink{
		Machine: "0000000000beef", NetworkID: 1, Address: fleet.PrivateAddress(1, 1, 50),
		Interface: "vm0000beef",
	}
	if err := w1.net.Restore(t.Context(), []fleet.MachineLink{m[1].MachineLink, m[3].MachineLink,
		gone}); err != nil {
		t.Fatal(err)
	}
	m[4].reaches(to1, name(1))
	m[5].reaches(port(m[3].Address, appPort), name(3))
	m[4].doesNotReach(to2)
	if err := w1.net.AddMachine(t.Context(), gone); !errs.Is(err, errs.NotFound) {
		t.Errorf("a machine on no link: %v", err)
	}

	// Without its peer, a worker has no way to the peer's machines.
	if err := w2.net.SyncPeers(t.Context(), []uint32{1, 2}, nil); err != nil {
		t.Fatal(err)
	}
	m[4].doesNotReach(to1)
	sync(t, w2, w1, 2, 1)
	sync(t, w2, w1, 2, 1)
	m[4].reaches(to1, name(1))
}

// TestMachineMovesToAnotherLink is a machine that is started anew on its worker: same address,
// another VM.
func TestMachineMovesToAnotherLink(t *testing.T) {
	t.Parallel()
	w1, _, m := fleetOfTwo(t)
	next := w1.addVM(6, 1, 1)
	next.address("lo", m[1].Address.String()+"/128")
	next.serve(port(m[1].Address, appPort), "machine 1 again")
	link := m[1].MachineLink
	link.Interface = next.Interface
	if err := w1.net.AddMachine(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	m[4].reaches(port(m[1].Address, appPort), "machine 1 again")
	m[1].doesNotReach(port(m[4].Address, appPort)) // the old VM has no rights any more
}

func TestRulesMadeByOthers(t *testing.T) {
	t.Parallel()
	w1, _, m := fleetOfTwo(t)
	w1.net.nft.FlushTable(table())
	w1.net.nft.DelTable(table())
	if err := w1.net.nft.Flush(); err != nil {
		t.Fatal(err)
	}
	w1.add(m[1])
	m[4].reaches(port(m[2].Address, appPort), name(2)) // all are back
	m[1].doesNotReach(port(m[3].Address, appPort))
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	h := newLAN(t, 1)[0]
	good := fleet.MachineLink{
		Machine: "00000000000001", NetworkID: 1, Address: fleet.PrivateAddress(1, 1, 1),
		Interface: "vm00000001",
	}
	for what, change := range map[string]func(*fleet.MachineLink){
		"another network's address": func(m *fleet.MachineLink) {
			m.Address = fleet.PrivateAddress(2, 1, 1)
		},
		"the underlay as a link": func(m *fleet.MachineLink) { m.Interface = "uplink0" },
		"a link with a long name": func(m *fleet.MachineLink) {
			m.Interface = "vm" + strings.Repeat("x", 20)
		},
		"no machine": func(m *fleet.MachineLink) { m.Machine = "" },
		"no address": func(m *fleet.MachineLink) { m.Address = netip.Addr{} },
	} {
		m := good
		change(&m)
		if err := h.net.AddMachine(t.Context(), m); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := h.try(func() error {
		_, err := New(Config{Address: netip.MustParseAddr("fd00:5::99")})
		return err
	})
	if !errs.Is(err, errs.Invalid) {
		t.Errorf("an address that the host hasn't: %v", err)
	}
}
