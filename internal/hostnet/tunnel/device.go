package tunnel

import (
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// peer is another worker, as a device knows it.
type peer struct {
	endpoint netip.AddrPort
	allowed  []netip.Prefix // ordered; whose addresses it may send from, and is sent to
}

func (p peer) equal(q peer) bool {
	return p.endpoint == q.endpoint && slices.Equal(p.allowed, q.allowed)
}

// state is what a device has, or shall have.
type state struct {
	private wgtypes.Key
	port    uint16
	peers   map[wgtypes.Key]peer // by public key
}

// change is what makes of one state another.
type change struct {
	private *wgtypes.Key // nil: as it is
	port    *uint16
	gone    []wgtypes.Key
	set     map[wgtypes.Key]peer // new ones, and those that differ
}

// driver is an interface's WireGuard, in the kernel or in a process.
type driver interface {
	read() (state, error)
	apply(c change) error
	close() error
}

// diff returns what has to be changed, and whether anything has.
func diff(have, want state) (c change, differs bool) {
	if have.private != want.private {
		c.private, differs = &want.private, true
	}
	if have.port != want.port {
		c.port, differs = &want.port, true
	}
	for key := range have.peers {
		if _, wanted := want.peers[key]; !wanted {
			c.gone, differs = append(c.gone, key), true
		}
	}
	c.set = map[wgtypes.Key]peer{}
	for key, p := range want.peers {
		if old, known := have.peers[key]; !known || !old.equal(p) {
			c.set[key], differs = p, true
		}
	}
	return c, differs
}

// ordered sorts prefixes, so that equal sets are equal slices.
func ordered(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return all
}
