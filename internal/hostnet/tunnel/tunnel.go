package tunnel

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// DefaultPort is WireGuard's usual UDP port.
	DefaultPort = 51820
	// Overhead is what a packet grows by in the tunnel, over IPv6, in bytes.
	Overhead = 80
	keyFile  = "tunnel-keys.json"
)

// Config is what a Tunnel needs.
type Config struct {
	Name string // of the interface
	Dir  string // the worker's own directory: keys, and the socket of the process
	Port uint16 // UDP; free on this host
	MTU  int    // of the interface, bytes
	// Process: not even where the kernel has WireGuard, use its.
	Process bool
	Now     func() time.Time
}

// Tunnel is a worker's WireGuard interface. Not safe for concurrent use.
type Tunnel struct {
	cfg  Config
	nl   *netlink.Handle
	ns   netns.NsHandle // where the interface is
	dev  driver
	keys keyring
	have state // as the device has it, as far as nobody else changes it
}

// Peer is another worker.
type Peer struct {
	Key     string // its public key, base64
	At      netip.AddrPort
	Allowed []netip.Prefix // its machines' addresses
}

// Open returns the tunnel of the calling thread's network namespace: the one that an earlier daemon
// left there, or a new one without peers. Unsupported: the kernel has neither WireGuard nor TUN.
func Open(cfg Config, nl *netlink.Handle) (*Tunnel, error) {
	keys, err := loadKeys(filepath.Join(cfg.Dir, keyFile), cfg.Now())
	if err != nil {
		return nil, err
	}
	ns, err := netns.Get()
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "find the network namespace")
	}
	t := &Tunnel{cfg: cfg, nl: nl, ns: ns, keys: keys}
	if err := t.ensure(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// ensure makes the interface if it isn't there, gives it its key, and reads what it has.
func (t *Tunnel) ensure() error {
	link, err := t.link()
	if err != nil {
		return err
	}
	if t.dev != nil {
		if err := t.dev.close(); err != nil {
			return errs.Wrap(errs.Internal, err, "close tunnel %s", t.cfg.Name)
		}
		t.dev = nil
	}
	if link.Type() == "wireguard" {
		err := inside(t.ns, func() (err error) {
			t.dev, err = openKernel(t.cfg.Name)
			return err
		})
		if err != nil {
			return err
		}
	} else {
		t.dev = &processDevice{name: t.cfg.Name, dial: dialer(t.cfg.Dir)}
	}
	if t.have, err = t.dev.read(); err != nil {
		return err
	}
	if err := t.apply(state{private: t.keys.Current, port: t.cfg.Port,
		peers: t.have.peers}); err != nil {
		return err
	}
	if err := t.nl.LinkSetUp(link); err != nil {
		return errs.Wrap(errs.Internal, err, "bring up tunnel %s", t.cfg.Name)
	}
	return nil
}

// link returns the interface; it makes it if it isn't there.
func (t *Tunnel) link() (netlink.Link, error) {
	link, err := t.nl.LinkByName(t.cfg.Name)
	if err == nil {
		return link, nil
	}
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, errs.Wrap(errs.Internal, err, "find tunnel %s", t.cfg.Name)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = t.cfg.Name, t.cfg.MTU
	err = unix.EOPNOTSUPP
	if !t.cfg.Process {
		err = t.nl.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	}
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		if err := inside(t.ns, func() error { return startProcess(t.cfg) }); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, errs.Wrap(errs.Internal, err, "make tunnel %s", t.cfg.Name).
			WithRemedy("run as root")
	}
	if link, err = t.nl.LinkByName(t.cfg.Name); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "find tunnel %s", t.cfg.Name)
	}
	return link, nil
}

func (t *Tunnel) apply(want state) error {
	c, differs := diff(t.have, want)
	if !differs {
		return nil
	}
	if err := t.dev.apply(c); err != nil {
		t.have = state{} // not known: the next Sync reads it
		return err
	}
	t.have = want
	return nil
}

// Sync makes the tunnel have these peers, and no others, and returns the interface's index. It
// makes the interface anew if it has gone. Invalid: a peer's key is none; the others are set.
func (t *Tunnel) Sync(peers []Peer) (index int, err error) {
	link, err := t.nl.LinkByName(t.cfg.Name)
	if err != nil || t.have.peers == nil {
		if err := t.ensure(); err != nil {
			return 0, err
		}
		if link, err = t.nl.LinkByName(t.cfg.Name); err != nil {
			return 0, errs.Wrap(errs.Unavailable, err, "find tunnel %s", t.cfg.Name)
		}
	}
	want := state{private: t.keys.Current, port: t.cfg.Port, peers: map[wgtypes.Key]peer{}}
	var bad error
	for _, p := range peers {
		key, err := wgtypes.ParseKey(p.Key)
		if err != nil {
			bad = errors.Join(bad, errs.Wrap(errs.Invalid, err, "key of the tunnel to %s", p.At))
			continue
		}
		want.peers[key] = peer{endpoint: plainAddrPort(p.At), allowed: ordered(p.Allowed)}
	}
	return link.Attrs().Index, errors.Join(t.apply(want), bad)
}

// PublicKey is what peers have to be told of, before Offered is called.
func (t *Tunnel) PublicKey() string { return t.keys.offered().PublicKey().String() }

// Renew makes a key, which is used once peers are told of it, and returns the new PublicKey. One
// that was made before and isn't in use yet is kept.
func (t *Tunnel) Renew() (string, error) {
	if t.keys.Next == nil {
		k, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return "", errs.Wrap(errs.Internal, err, "make a tunnel key")
		}
		ring := t.keys
		ring.Next = &k
		if err := ring.save(filepath.Join(t.cfg.Dir, keyFile)); err != nil {
			return "", errs.Wrap(errs.Internal, err, "save a tunnel key")
		}
		t.keys = ring
	}
	return t.PublicKey(), nil
}

// Offered puts the key to a PublicKey in use, as peers are being told of it. Another one than the
// newest is ignored.
func (t *Tunnel) Offered(public string) error {
	if t.keys.Next == nil || t.keys.Next.PublicKey().String() != public {
		return nil
	}
	ring := keyring{Current: *t.keys.Next, Made: t.cfg.Now()}
	if err := ring.save(filepath.Join(t.cfg.Dir, keyFile)); err != nil {
		return errs.Wrap(errs.Internal, err, "save a tunnel key")
	}
	t.keys = ring
	want := t.have
	want.private = ring.Current
	if want.peers == nil {
		return nil // the next Sync sets it
	}
	return t.apply(want)
}

// KeyMade is when the key in use was made.
func (t *Tunnel) KeyMade() time.Time { return t.keys.Made }

// Close forgets the tunnel. The interface stays as it is.
func (t *Tunnel) Close() error {
	err := t.ns.Close()
	if t.dev != nil {
		err = errors.Join(err, t.dev.close())
	}
	return err
}

// Remove deletes the interface, and with it the process that may have it, which has ended then.
func Remove(name, dir string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "remove tunnel %s", name)
	}
	for began := time.Now(); answers(dir); time.Sleep(time.Millisecond) {
		if time.Since(began) > startTimeout {
			return errs.New(errs.Internal, "the process of tunnel %s doesn't end", name)
		}
	}
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !os.IsNotExist(err) {
		return errs.Wrap(errs.Internal, err, "remove the socket of tunnel %s", name)
	}
	return nil
}

// answers reports whether a process has the socket in dir.
func answers(dir string) bool {
	conn, err := dialer(dir)()
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
