package inner

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rulesTable is the only table. It is always replaced as a whole, so setRules is idempotent.
const rulesTable = "sluice"

// Offsets in the IPv6 header, in bytes.
const (
	saddrOffset = 8
	daddrOffset = 24
	addrBytes   = 16
)

// setRules installs what the machine may send. Into the VM: neighbour discovery only. Through the
// VM: to the host link, from its own address. To the machine: what is for its own address. Without
// an address nothing is forwarded.
func setRules(hostLink string, ip netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reach the packet filter: %w", err)
	}
	table := &nftables.Table{Name: rulesTable, Family: nftables.TableFamilyINet}
	c.AddTable(table) // so that deleting it can't fail
	c.DelTable(table)
	c.AddTable(table)
	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	input := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	forward := c.AddChain(&nftables.Chain{Name: "forward", Table: table,
		Type:    nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all})
	}
	// Neighbour solicitation and advertisement (135, 136); a ping (128) of the gateway is answered
	// too.
	for _, kind := range []byte{128, 135, 136} {
		add(input, link(expr.MetaKeyIIFNAME, vmSide), icmpv6(kind), verdict(expr.VerdictAccept))
	}
	add(input, link(expr.MetaKeyIIFNAME, vmSide), verdict(expr.VerdictDrop))
	if ip.IsValid() {
		add(forward, link(expr.MetaKeyIIFNAME, vmSide), link(expr.MetaKeyOIFNAME, hostLink),
			ipv6(saddrOffset, ip), verdict(expr.VerdictAccept))
		add(forward, link(expr.MetaKeyIIFNAME, hostLink), link(expr.MetaKeyOIFNAME, vmSide),
			ipv6(daddrOffset, ip), verdict(expr.VerdictAccept))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set packet filter: %w", err)
	}
	return nil
}

func link(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

func ipv6(offset uint32, ip netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset,
			Len: addrBytes},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip.AsSlice()},
	}
}

func icmpv6(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
