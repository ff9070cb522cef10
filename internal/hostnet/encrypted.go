package hostnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TunnelLink is the interface by which machines' packets get to other workers.
const TunnelLink = "sluice0"

// openTunnel finds or makes the tunnel, if there shall be one.
func (n *Net) openTunnel() error {
	if n.cfg.Tunnel == nil {
		return nil
	}
	link, err := n.nl.LinkByName(n.cfg.Underlay)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "find underlay %s", n.cfg.Underlay)
	}
	cfg := *n.cfg.Tunnel
	cfg.Name, cfg.MTU = TunnelLink, link.Attrs().MTU-tunnel.Overhead
	if cfg.MTU < minMTU {
		return errs.New(errs.Unsupported,
			"packets of %s have at most %d bytes: too few for a tunnel",
			n.cfg.Underlay, link.Attrs().MTU).
			WithRemedy("give %s an MTU of at least %d", n.cfg.Underlay, minMTU+tunnel.Overhead)
	}
	n.mtu = cfg.MTU
	n.tunnel, err = tunnel.Open(cfg, n.nl)
	return err
}

// minMTU is IPv6's.
const minMTU = 1280

func (n *Net) closeTunnel() error {
	if n.tunnel == nil {
		return nil
	}
	return n.tunnel.Close()
}

// outside is the interface by which other workers' machines are reached, and nothing else is.
func (n *Net) outside() string {
	if n.tunnel != nil {
		return TunnelLink
	}
	return n.cfg.Underlay
}

// syncTunnel gives the tunnel its peers before the routes to them. One that goes can't send from
// then on, and the routes to it go next.
func (n *Net) syncTunnel(networks []uint32, peers []fleet.Peer) error {
	var ends []tunnel.Peer
	var reached []fleet.Peer
	var without []string
	for _, p := range peers {
		if p.Tunnel.Key == "" {
			without = append(without, string(p.Worker))
			continue
		}
		end := tunnel.Peer{Key: p.Tunnel.Key, At: netip.AddrPortFrom(p.Address, p.Tunnel.Port)}
		for _, network := range networks {
			end.Allowed = append(end.Allowed, fleet.WorkerPrefix(network, p.Number))
		}
		ends, reached = append(ends, end), append(reached, p)
	}
	link, err := n.tunnel.Sync(ends)
	if err != nil {
		return err
	}
	none := func(fleet.Peer) net.IP { return nil }
	if err := n.syncRoutes(networks, reached, link, none); err != nil {
		return err
	}
	if len(without) > 0 {
		return errs.New(errs.Unavailable, "no tunnel to worker %s, which has none",
			strings.Join(without, ", ")).
			WithRemedy("start it again with the present release, and without --tunnel off")
	}
	return nil
}

// Intact reports whether the interface to other workers is there. With it goes what was routed over
// it.
func (n *Net) Intact() bool {
	if n.tunnel == nil {
		return true
	}
	_, err := n.nl.LinkByName(TunnelLink)
	return err == nil
}

// Wire says how machines' packets get to other workers.
func (n *Net) Wire() fleet.Wire {
	if n.tunnel == nil {
		return fleet.Wire{}
	}
	<-n.sem
	defer n.unlock()
	return fleet.Wire{MTU: n.mtu,
		Tunnel: fleet.TunnelEnd{Key: n.tunnel.PublicKey(), Port: n.cfg.Tunnel.Port}}
}

// RenewTunnel makes a new key if the one in use is older than life, and reports whether there is
// one that peers don't know of.
func (n *Net) RenewTunnel(ctx context.Context, life time.Duration) (bool, error) {
	if n.tunnel == nil {
		return false, nil
	}
	if err := n.lock(ctx); err != nil {
		return false, err
	}
	defer n.unlock()
	if n.cfg.Tunnel.Now().Sub(n.tunnel.KeyMade()) < life {
		return false, nil
	}
	_, err := n.tunnel.Renew()
	return err == nil, err
}

// TunnelOffered puts the key of an end that peers are being told of in use.
func (n *Net) TunnelOffered(ctx context.Context, end fleet.TunnelEnd) error {
	if n.tunnel == nil {
		return nil
	}
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	return n.tunnel.Offered(end.Key)
}
