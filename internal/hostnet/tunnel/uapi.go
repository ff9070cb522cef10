package tunnel

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// uapiTimeout is far more than an answer takes, on a host that does anything at all.
const uapiTimeout = 10 * time.Second

// processDevice is an interface that a process of its own has, see Child. It is asked by
// WireGuard's cross-platform protocol (https://www.wireguard.com/xplatform/) on a unix socket.
type processDevice struct {
	name string
	dial func() (net.Conn, error)
}

func (d *processDevice) close() error { return nil }

func (d *processDevice) read() (state, error) {
	lines, err := d.ask("get=1\n\n")
	if err != nil {
		return state{}, err
	}
	s, err := parseState(lines)
	if err != nil {
		return state{}, errs.Wrap(errs.Internal, err, "read tunnel %s", d.name)
	}
	return s, nil
}

func (d *processDevice) apply(c change) error {
	_, err := d.ask(c.uapi())
	return err
}

// uapi is the request that makes a change.
func (c change) uapi() string {
	var b strings.Builder
	b.WriteString("set=1\n")
	if c.private != nil {
		fmt.Fprintf(&b, "private_key=%x\n", c.private[:])
	}
	if c.port != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *c.port)
	}
	for _, key := range c.gone { // first: an address may go from one key to another
		fmt.Fprintf(&b, "public_key=%x\nremove=true\n", key[:])
	}
	for key, p := range c.set {
		fmt.Fprintf(&b, "public_key=%x\nendpoint=%s\nreplace_allowed_ips=true\n", key[:],
			p.endpoint)
		for _, prefix := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", prefix)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// ask sends one request, and returns the lines of its answer, without the one that ends it.
func (d *processDevice) ask(request string) ([]string, error) {
	conn, err := d.dial()
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "reach the process of tunnel %s", d.name).
			WithRemedy("if no other worker of this host has it, remove it: ip link del %s", d.name)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(uapiTimeout)); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "bound the answer of tunnel %s", d.name)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "ask the process of tunnel %s", d.name)
	}
	var lines []string
	for in := bufio.NewScanner(conn); in.Scan(); {
		if code, last := strings.CutPrefix(in.Text(), "errno="); last {
			if code != "0" {
				return nil, errs.New(errs.Internal,
					"the process of tunnel %s refuses its configuration: errno %s", d.name, code)
			}
			return lines, nil
		}
		lines = append(lines, in.Text())
	}
	return nil, errs.New(errs.Unavailable, "the process of tunnel %s broke off its answer", d.name)
}

// parseState reads the answer to get; keys of lines that it doesn't know are counters and options.
func parseState(lines []string) (state, error) {
	s := state{peers: map[wgtypes.Key]peer{}}
	var key wgtypes.Key
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		var err error
		p := s.peers[key]
		switch name {
		case "private_key":
			s.private, err = hexKey(value)
		case "listen_port":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 16)
			s.port = uint16(n)
		case "public_key":
			key, err = hexKey(value)
			s.peers[key] = peer{}
		case "endpoint":
			var at netip.AddrPort
			at, err = netip.ParseAddrPort(value)
			p.endpoint = plainAddrPort(at)
			s.peers[key] = p
		case "allowed_ip":
			var prefix netip.Prefix
			prefix, err = netip.ParsePrefix(value)
			p.allowed = ordered(append(p.allowed, prefix))
			s.peers[key] = p
		}
		if err != nil {
			return state{}, fmt.Errorf("parse %s of a tunnel: %w", name, err)
		}
	}
	return s, nil
}

func hexKey(text string) (wgtypes.Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return wgtypes.Key{}, err
	}
	return wgtypes.NewKey(b)
}
