package tunnel

import (
	"net"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// kernelDevice is an interface that the kernel's own WireGuard has.
type kernelDevice struct {
	name   string
	client *wgctrl.Client
}

func openKernel(name string) (driver, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, errs.Wrap(errs.Unsupported, err, "reach the kernel's WireGuard")
	}
	return &kernelDevice{name: name, client: client}, nil
}

func (d *kernelDevice) close() error { return d.client.Close() }

func (d *kernelDevice) read() (state, error) {
	dev, err := d.client.Device(d.name)
	if err != nil {
		return state{}, errs.Wrap(errs.Unavailable, err, "read tunnel %s", d.name)
	}
	s := state{private: dev.PrivateKey, port: uint16(dev.ListenPort),
		peers: map[wgtypes.Key]peer{}}
	for _, p := range dev.Peers {
		var q peer
		if p.Endpoint != nil {
			q.endpoint = plainAddrPort(p.Endpoint.AddrPort())
		}
		for _, n := range p.AllowedIPs {
			addr, ok := netip.AddrFromSlice(n.IP)
			if bits, _ := n.Mask.Size(); ok {
				q.allowed = append(q.allowed, netip.PrefixFrom(addr, bits))
			}
		}
		q.allowed = ordered(q.allowed)
		s.peers[p.PublicKey] = q
	}
	return s, nil
}

func (d *kernelDevice) apply(c change) error {
	cfg := wgtypes.Config{PrivateKey: c.private}
	if c.port != nil {
		port := int(*c.port)
		cfg.ListenPort = &port
	}
	for _, key := range c.gone { // first: an address may go from one key to another
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: key, Remove: true})
	}
	for key, p := range c.set {
		pc := wgtypes.PeerConfig{PublicKey: key, ReplaceAllowedIPs: true,
			Endpoint: net.UDPAddrFromAddrPort(p.endpoint)}
		for _, prefix := range p.allowed {
			pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{IP: prefix.Addr().AsSlice(),
				Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())})
		}
		cfg.Peers = append(cfg.Peers, pc)
	}
	if err := d.client.ConfigureDevice(d.name, cfg); err != nil {
		return errs.Wrap(errs.Internal, err, "configure tunnel %s", d.name)
	}
	return nil
}

// plainAddrPort is an address as the configuration has it: IPv4 not as IPv6.
func plainAddrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
