package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// identityFlags say who vouches for the parts of the fleet, and how the server is known.
type identityFlags struct {
	caCert, caKey    string // files
	certLife         time.Duration
	hosts            []string
	insecureLoopback bool
}

func (f *identityFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.caCert, "ca-cert", "",
		"file with the certificate of an authority of your own; the server makes one in --data else")
	flags.StringVar(&f.caKey, "ca-key", "", "file with the key of --ca-cert")
	flags.DurationVar(&f.certLife, "cert-life", identity.Life,
		"life of certificates; they are renewed after two thirds of it")
	flags.StringArrayVar(&f.hosts, "tls-host", nil,
		"another name or address by which programs reach the server, for its certificate; repeat it for more")
	flags.BoolVar(&f.insecureLoopback, "insecure-loopback", false,
		"speak plain HTTP on those --listen addresses that are this host's loopback")
}

func (f *identityFlags) check() error {
	if (f.caCert == "") != (f.caKey == "") {
		return usageError("--ca-cert and --ca-key go together")
	}
	if f.certLife < identity.MinLife {
		return usageError("--cert-life %s is shorter than %s", f.certLife, identity.MinLife)
	}
	return nil
}

// open returns the fleet's authority.
func (f *identityFlags) open(data, fleetID string) (*identity.Authority, error) {
	return identity.OpenAuthority(identity.AuthorityConfig{Fleet: fleetID,
		Dir: filepath.Join(data, "identity"), CertFile: f.caCert, KeyFile: f.caKey,
		Life: f.certLife})
}

// issuer is the fleet's authority as the control plane uses it.
type issuer struct{ *identity.Authority }

var _ control.Authority = issuer{}

// NewToken implements control.Authority.
func (i issuer) NewToken() (id, hash, text string) {
	t := identity.NewToken(i.Hash())
	return t.ID, t.Hash(), t.String()
}

// ReadToken implements control.Authority.
func (issuer) ReadToken(text string) (id, hash string, err error) {
	t, err := identity.ParseToken(text)
	return t.ID, t.Hash(), err
}

// CheckRequest implements control.Authority.
func (issuer) CheckRequest(request string) (string, error) {
	return identity.CheckRequest([]byte(request))
}

// Issue implements control.Authority.
func (i issuer) Issue(worker fleet.WorkerID, term int64,
	request string) (fleet.EnrollAnswer, error) {
	a, err := i.IssueWorker(string(worker), term, []byte(request))
	return fleet.EnrollAnswer{Certificate: string(a.Certificate),
		Authority: string(a.Authority)}, err
}

// State implements control.Authority.
func (i issuer) State() fleet.AuthorityState {
	v := i.View()
	s := fleet.AuthorityState{Phase: string(v.Phase), Version: v.Version, PEM: string(v.PEM)}
	for _, c := range v.Certs {
		s.Certs = append(s.Certs, fleet.AuthorityCert(c))
	}
	return s
}

// Rotate implements control.Authority.
func (i issuer) Rotate(step string) error { return i.Authority.Rotate(identity.Step(step)) }

// authorityEvery is how often the authority's files are read again.
const authorityEvery = 2 * time.Second

// followAuthority has the fleet follow what the authority's files say, until ctx ends. What can't
// be read changes nothing.
func followAuthority(ctx context.Context, a *identity.Authority, changed func(),
	log *slog.Logger) error {
	tick := time.NewTicker(authorityEvery)
	defer tick.Stop()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		fresh, err := a.Reload()
		switch {
		case err == nil && fresh:
			log.InfoContext(ctx, "the fleet's authority is read again", "version", a.View().Version)
			changed()
		case err == nil:
			failing = ""
		case err.Error() != failing: // once for each failure
			failing = err.Error()
			log.ErrorContext(ctx, "the fleet's authority can't be read; what it was counts until the server's end",
				"error", err, "remedy", errs.RemedyOf(err))
		}
	}
}

// useIdentity makes the API know workers by their certificates, and show them the server's.
func useIdentity(deps *httpapi.Deps, a *identity.Authority, self *identity.Self) {
	enrolment := deps.Enrolment
	// At each step of a rotation: a session that is resumed shows the certificate that the worker
	// had when it began, perhaps of an authority that is gone by now.
	deps.Peer, deps.DialledAs = a.Check, func() string { return a.View().Version }
	deps.Dial = func(w fleet.WorkerAPI) (*tls.Config, time.Time) {
		// Without a certificate there is no connection, which says why.
		until, _ := self.Until()
		right := identity.IsWorker(string(w.Worker))
		return identity.ClientConfig(self, func(n identity.Name) error {
			if err := right(n); err != nil {
				return err
			}
			return enrolment.CheckWorker(w.Worker, n.Term)
		}), until
	}
}

// Bounds of the server's connections.
var serverConnections = connlimit.Config{Total: 16384, Unknown: 1024}

// served is a listener with the URL at which clients reach it.
type served struct {
	net.Listener
	url string
}

// secure makes listeners speak TLS, but for those of loopback where plain HTTP is asked for.
func (f *identityFlags) secure(plain []net.Listener,
	a *identity.Authority) ([]served, *identity.Self) {
	hosts := append([]string{"localhost"}, f.hosts...)
	for _, l := range plain {
		hosts = append(hosts, hostsOf(l.Addr())...)
	}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	self := a.Self(hosts...)
	config := identity.ServerConfig(self)
	out := make([]served, 0, len(plain))
	for _, l := range plain {
		limited := connlimit.Listen(l, serverConnections)
		at, err := netip.ParseAddrPort(l.Addr().String())
		if f.insecureLoopback && err == nil && at.Addr().IsLoopback() {
			out = append(out, served{limited, "http://" + l.Addr().String()})
			continue
		}
		out = append(out, served{tls.NewListener(limited, config), "https://" + l.Addr().String()})
	}
	return out, self
}

// hostsOf are the addresses at which a listener is reached.
func hostsOf(addr net.Addr) []string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return nil
	}
	if !at.Addr().IsUnspecified() {
		return []string{at.Addr().WithZone("").String()}
	}
	var hosts []string
	all, _ := net.InterfaceAddrs() // without them, programs that check names can name one by a flag
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok {
			hosts = append(hosts, ip.IP.String())
		}
	}
	return hosts
}
