package hostnet

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	tableName    = "sluice"
	machinesSet  = "machines" // link . address: who is where
	networksSet  = "networks" // link . first address of a /48: whom it may talk to
	fromMachine  = "from_machine"
	toMachine    = "to_machine"
	fromVM       = "from_vm"
	elementChunk = 256 // of what fits into one message
)

func table() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

// linkSet is a set of pairs of an interface name and an address.
func linkSet(name string) (*nftables.Set, error) {
	key, err := nftables.ConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "type of set %s", name)
	}
	// The id counts within one transaction only. Chosen here, because the library would take it
	// from a counter that all connections of a process share without a lock.
	id := uint32(1)
	if name == networksSet {
		id = 2
	}
	return &nftables.Set{Table: table(), Name: name, ID: id, KeyType: key, Concatenation: true}, nil
}

// pair is the key of an element: both parts are as wide as a register.
func pair(link string, addr netip.Addr) nftables.SetElement {
	key := make([]byte, 32)
	copy(key[:16], link)
	copy(key[16:], addr.AsSlice())
	return nftables.SetElement{Key: key}
}

func elements(links []fleet.MachineLink) (machines, networks []nftables.SetElement) {
	for _, m := range links {
		machines = append(machines, pair(m.Interface, m.Address))
		networks = append(networks, pair(m.Interface, fleet.NetworkPrefix(m.NetworkID).Addr()))
	}
	return machines, networks
}

// changeSets adds and removes elements in one transaction.
func (n *Net) changeSets(added, gone []fleet.MachineLink) error {
	machines, err := linkSet(machinesSet)
	if err != nil {
		return err
	}
	networks, err := linkSet(networksSet)
	if err != nil {
		return err
	}
	steps := []struct {
		links []fleet.MachineLink
		apply func(*nftables.Set, []nftables.SetElement) error
	}{{gone, n.nft.SetDeleteElements}, {added, n.nft.SetAddElements}}
	for _, s := range steps {
		if len(s.links) == 0 {
			continue
		}
		m, w := elements(s.links)
		if err := s.apply(machines, m); err != nil {
			return err
		}
		if err := s.apply(networks, w); err != nil {
			return err
		}
	}
	return n.nft.Flush()
}

// rebuild replaces the whole table in one transaction.
func (n *Net) rebuild() error {
	n.stale = true
	c := n.nft
	t := c.AddTable(table()) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	machines, err := linkSet(machinesSet)
	if err != nil {
		return err
	}
	networks, err := linkSet(networksSet)
	if err != nil {
		return err
	}
	var links []fleet.MachineLink
	for _, m := range n.links {
		links = append(links, m)
	}
	m, w := elements(links)
	for _, s := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{{machines, m}, {networks, w}} {
		if err := n.addSet(s.set, s.elements); err != nil {
			return errs.Wrap(errs.Internal, err, "add set %s", s.set.Name)
		}
	}
	n.addInput(t)
	if err := n.addForward(t, machines, networks); err != nil {
		return errs.Wrap(errs.Internal, err, "add the rules of what machines send")
	}
	if err := c.Flush(); err != nil {
		return errs.Wrap(errs.Unsupported, err, "set up packet rules").
			WithRemedy("the kernel needs nf_tables with the inet family")
	}
	n.stale = false
	return nil
}

func (n *Net) addSet(set *nftables.Set, all []nftables.SetElement) error {
	if err := n.nft.AddSet(set, nil); err != nil {
		return err
	}
	for len(all) > 0 {
		k := min(len(all), elementChunk)
		if err := n.nft.SetAddElements(set, all[:k]); err != nil {
			return err
		}
		all = all[k:]
	}
	return nil
}

// addInput says what a VM may send to the worker itself.
func (n *Net) addInput(t *nftables.Table) {
	accept := nftables.ChainPolicyAccept
	input := n.nft.AddChain(&nftables.Chain{
		Name: "input", Table: t, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	vm := n.nft.AddChain(&nftables.Chain{Name: fromVM, Table: t})
	add := func(c *nftables.Chain, parts ...[]expr.Any) {
		n.nft.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: join(parts...)})
	}
	add(input, ifName(expr.MetaKeyIIFNAME, LinkPrefix), verdict(expr.VerdictGoto, fromVM))
	add(input, ipv6(), in(sourceAddr, fleetPrefix()), count(), verdict(expr.VerdictDrop, ""))
	add(vm, ipv6(), neighbourDiscovery(), verdict(expr.VerdictAccept, ""))
	add(vm, ipv6(), onLink(), tcpPort(destPort, guestapi.GatewayPort),
		verdict(expr.VerdictAccept, ""))
	add(vm, ipv6(), onLink(), tcpPort(sourcePort, guestapi.ControlPort), notOpening(),
		verdict(expr.VerdictAccept, ""))
	add(vm, count(), verdict(expr.VerdictDrop, ""))
}

// addForward says what machines may send to each other.
func (n *Net) addForward(t *nftables.Table, machines, networks *nftables.Set) error {
	drop := nftables.ChainPolicyDrop
	forward := n.nft.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Policy: &drop,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	from := n.nft.AddChain(&nftables.Chain{Name: fromMachine, Table: t})
	to := n.nft.AddChain(&nftables.Chain{Name: toMachine, Table: t})
	add := func(c *nftables.Chain, parts ...[]expr.Any) {
		n.nft.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: join(parts...)})
	}
	outside := exactName(n.outside())
	add(forward, ifName(expr.MetaKeyIIFNAME, LinkPrefix), verdict(expr.VerdictJump, fromMachine))
	add(forward, ifName(expr.MetaKeyIIFNAME, outside), verdict(expr.VerdictJump, toMachine))
	add(forward, count(), verdict(expr.VerdictDrop, ""))

	if err := n.addRates(t, from); err != nil {
		return err
	}
	mayLeave := join(ipv6(), lookup(expr.MetaKeyIIFNAME, sourceAddr, 128, machines),
		lookup(expr.MetaKeyIIFNAME, destAddr, 48, networks))
	add(from, mayLeave, ifName(expr.MetaKeyOIFNAME, outside), verdict(expr.VerdictAccept, ""))
	add(from, mayLeave, verdict(expr.VerdictGoto, toMachine))

	add(to, ipv6(), lookup(expr.MetaKeyOIFNAME, destAddr, 128, machines),
		lookup(expr.MetaKeyOIFNAME, sourceAddr, 48, networks), verdict(expr.VerdictAccept, ""))
	return nil
}

// Offsets in an IPv6 header and a TCP header.
const (
	sourceAddr = 8
	destAddr   = 24
	hopLimit   = 7
	sourcePort = 0
	destPort   = 2
	tcpFlags   = 13
)

// The registers used: both 16 bytes wide, and side by side, so that one lookup can use both.
const (
	reg1 = 1
	reg2 = 2
)

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func count() []expr.Any { return []expr.Any{&expr.Counter{}} }

func equal(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data} }

// ifName matches interfaces whose name begins with name, or is it, if it ends with a zero byte.
func ifName(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, equal([]byte(name)...)}
}

func exactName(name string) string { return name + "\x00" }

func ipv6() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		equal(unix.NFPROTO_IPV6)}
}

func network(offset, length uint32, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader,
		Offset: offset, Len: length}
}

func transport(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader,
		Offset: offset, Len: length}
}

func in(offset uint32, p netip.Prefix) []expr.Any {
	return []expr.Any{network(offset, uint32(p.Bits()/8), reg1),
		equal(p.Addr().AsSlice()[:p.Bits()/8]...)}
}

// lookup matches if (interface, the first bits of an address) is in a set.
func lookup(iface expr.MetaKey, offset uint32, bits int, set *nftables.Set) []expr.Any {
	mask := make([]byte, 16)
	for i := range bits / 8 {
		mask[i] = 0xff
	}
	return []expr.Any{
		&expr.Meta{Key: iface, Register: reg1},
		network(offset, 16, reg2),
		&expr.Bitwise{SourceRegister: reg2, DestRegister: reg2, Len: 16, Mask: mask,
			Xor: make([]byte, 16)},
		&expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID},
	}
}

// neighbourDiscovery matches solicitations and advertisements that no router has forwarded.
func neighbourDiscovery() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal(unix.IPPROTO_ICMPV6),
		network(hopLimit, 1, reg1), equal(255),
		transport(0, 1),
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: []byte{135}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{136}},
	}
}

// onLink matches what the VM's end of the link sends to the worker's end.
func onLink() []expr.Any {
	guest, host := netip.MustParseAddr(guestapi.GuestLinkIP),
		netip.MustParseAddr(guestapi.HostLinkIP)
	return join(in(sourceAddr, netip.PrefixFrom(guest, 128)),
		in(destAddr, netip.PrefixFrom(host, 128)))
}

func tcpPort(offset uint32, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, equal(unix.IPPROTO_TCP),
		transport(offset, 2), equal(binaryutil.BigEndian.PutUint16(port)...),
	}
}

// notOpening matches all TCP packets but those that open a connection from the other side.
func notOpening() []expr.Any {
	const syn, ack = 0x02, 0x10
	return []expr.Any{
		transport(tcpFlags, 1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{syn | ack},
			Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{syn}},
	}
}
