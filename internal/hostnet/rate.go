package hostnet

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	ratesSet = "rates" // link, with what of its rate it has used
	// forgetRate is how long a link that sends nothing is remembered. It is longer than its burst
	// lasts, so that no link gets another one by being silent.
	forgetRate = time.Minute
	maxRates   = 1 << 16 // links; far more than a host has
	// rateBurst goes beyond a second's worth, and is room for the largest packets of a link.
	rateBurst = 256 << 10
)

// addRates drops what a link sends to other machines faster than Config.Rate. Each link has its own
// measure, in the kernel, so that one that sends too much takes nothing from the others'. What a VM
// sends to its worker isn't measured: its disk's requests have bounds of their own.
func (n *Net) addRates(t *nftables.Table, chain *nftables.Chain) error {
	if n.cfg.Rate <= 0 {
		return nil
	}
	set := &nftables.Set{Table: t, Name: ratesSet, ID: 3, KeyType: nftables.TypeIFName,
		Dynamic: true, HasTimeout: true, Timeout: forgetRate, Size: maxRates}
	if err := n.nft.AddSet(set, nil); err != nil {
		return err
	}
	measure := &expr.Dynset{SrcRegKey: reg1, SetID: set.ID, SetName: set.Name,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: forgetRate,
		Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePktBytes, Rate: uint64(n.cfg.Rate),
			Unit: expr.LimitTimeSecond, Burst: rateBurst, Over: true}}}
	n.nft.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, measure},
		count(), verdict(expr.VerdictDrop, ""))})
	return nil
}
