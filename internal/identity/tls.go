package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Own is the identity of this process. Its certificate may be another one each time.
type Own interface {
	Certificate() (*tls.Certificate, error)
	// Check returns whose a peer's chain of certificates is; Denied: nobody's of this fleet.
	Check(chain []*x509.Certificate) (Name, error)
}

// protocol: only with HTTP/1.1 can connections be upgraded, as those of exec are.
const protocol = "http/1.1"

// resumable bounds how many sessions a client keeps, so that another connection to the same peer
// costs less.
const resumable = 64

// ServerConfig is for listeners. Clients need no certificate; whoever needs to know who they are
// asks own.Check at each request, so that a refusal has an answer with a reason.
func ServerConfig(own Own) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return own.Certificate()
		},
	}
}

// ClientConfig is for connections to peers that accept takes. It shows own's certificate.
func ClientConfig(own Own, accept func(Name) error) *tls.Config {
	c := trusting(func(chain []*x509.Certificate) error {
		name, err := own.Check(chain)
		if err != nil {
			return err
		}
		return accept(name)
	})
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return own.Certificate()
	}
	return c
}

// IsServer accepts the server of the fleet.
func IsServer(n Name) error {
	if n.Role != Server {
		return errs.New(errs.Denied, "the certificate is of %s, and not of the fleet's server",
			n.who()).WithRemedy("check the server's URL: what answers there is not the server")
	}
	return nil
}

// IsWorker returns what accepts one worker.
func IsWorker(worker string) func(Name) error {
	return func(n Name) error {
		if n.Role != Worker || n.Worker != worker {
			return errs.New(errs.Denied, "the certificate is of %s, and not of worker %s", n.who(),
				worker)
		}
		return nil
	}
}

// JoiningConfig is for the connection of a worker that has a join token and nothing else: it takes
// the server whose authority the token names.
func JoiningConfig(t Token) *tls.Config {
	return trusting(func(chain []*x509.Certificate) error {
		for _, c := range chain {
			if c.IsCA && hashOf(c) == t.Authority {
				return checkJoined(c, chain)
			}
		}
		return errs.New(errs.Denied,
			"the server's certificate is not of the authority that made the join token").
			WithRemedy("check --server; or, if the fleet has a new authority, make a new token")
	})
}

// checkJoined: the server may have any fleet's id, as the token says nothing of it.
func checkJoined(authority *x509.Certificate, chain []*x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore})
	if err != nil {
		return errs.Wrap(errs.Denied, err, "the server's certificate is not of its authority")
	}
	for _, u := range leaf.URIs {
		if u.Scheme == scheme && u.Path == "/"+string(Server) {
			return checkClock(Name{Role: Server}, leaf, time.Now(), "this host")
		}
	}
	return errs.New(errs.Denied, "what answers at the server's URL is not the fleet's server").
		WithRemedy("check --server")
}

// trusting returns a client's config in which check alone says which peer is right.
func trusting(check func([]*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		// Peers are known by the name in their certificate, not by host names: check looks at it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		// It is called for resumed sessions, too.
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the peer has no certificate")
			}
			return check(s.PeerCertificates)
		},
		ClientSessionCache: tls.NewLRUClientSessionCache(resumable),
	}
}
