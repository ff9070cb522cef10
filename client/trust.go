package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"

	"github.com/sluice-platform/sluice/api"
)

// errNotServer is of a certificate of the fleet that isn't the server's.
var errNotServer = errors.New("the certificate is of the fleet, but not of its server")

// isLoopback reports whether a host is this one, by an address or a name that is reserved for it.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// trusting returns what a client takes for the server: with an authority, who has its certificate
// for a server's name; without one, what this host's authorities vouch for.
func trusting(ca []byte) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if len(ca) == 0 {
		return cfg, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, &api.Error{Code: codeInvalid,
			Message: "the file of the fleet's authority holds no certificate in PEM",
			Remedy:  "copy identity/ca.pem from the server's --data directory"}
	}
	cfg.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does it, by the server's name
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the server has no certificate")
		}
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			// The authority's own is among roots, if it is any good.
			if !bytes.Equal(c.RawIssuer, c.RawSubject) {
				between.AddCert(c)
			}
		}
		leaf := s.PeerCertificates[0]
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		if err != nil {
			return err
		}
		for _, u := range leaf.URIs {
			if u.Scheme == "sluice" && u.Path == "/server" {
				return nil
			}
		}
		return errNotServer
	}
	return cfg, nil
}

// certificateError is what a person can do about a server whose certificate isn't taken; nil if err
// is something else.
func certificateError(url string, err error) error {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
	)
	e := &api.Error{Code: codeUnavailable, Cause: err.Error(), Err: err,
		Message: "the server at " + url + " is not known by its certificate"}
	switch {
	case errors.As(err, &unknown):
		e.Message = "the certificate of the server at " + url + " is not of this fleet"
		e.Remedy = "check that --ca-file or SLUICE_CA_FILE is identity/ca.pem of the server's --data directory, or that --dir names this fleet"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Remedy = "check the clocks of this host and of the server; restart the server if they are right"
	case errors.As(err, &invalid), errors.Is(err, errNotServer):
		e.Remedy = "check SLUICE_URL: what answers there is not the fleet's server"
	case errors.As(err, &host):
		e.Remedy = "give the fleet's authority with --ca-file or SLUICE_CA_FILE"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Message = "the server at " + url + " speaks plain HTTP"
		e.Remedy = "use http:// in SLUICE_URL if that is meant: sluice server --insecure-loopback"
	default:
		return nil
	}
	return e
}
