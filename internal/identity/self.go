package identity

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// Self is the server's own certificate, which is made anew before it expires. Safe for concurrent
// use.
type Self struct {
	authority *Authority
	hosts     []string

	mu      sync.Mutex
	cert    *tls.Certificate
	by      string // Hash of the authority that signed it
	renewAt time.Time
}

var _ Own = (*Self)(nil)

// Self returns the server's identity. Its certificate is valid for hosts as well, so that programs
// that know nothing of fleets can check it.
func (a *Authority) Self(hosts ...string) *Self { return &Self{authority: a, hosts: hosts} }

// Check implements Own.
func (s *Self) Check(chain []*x509.Certificate) (Name, error) { return s.authority.Check(chain) }

// Certificate implements Own.
func (s *Self) Certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, trusted := s.authority.now(), s.authority.held.Load()
	by := hashOf(trusted.certs[0])
	// A clock that was set back far makes a new one, too, and so does another authority.
	if s.cert != nil && s.by == by && now.Before(s.renewAt) && now.After(s.cert.Leaf.NotBefore) {
		return s.cert, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := s.authority.sign(trusted, Name{Fleet: s.authority.fleet, Role: Server},
		key.Public(), s.hosts)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: [][]byte{der, trusted.certs[0].Raw},
		PrivateKey: key, Leaf: leaf}
	s.by, s.renewAt = by, renewal(leaf)
	return s.cert, nil
}

// Until is how long what is opened now with the certificate may be used.
func (s *Self) Until() (time.Time, error) {
	cert, err := s.Certificate()
	if err != nil {
		return time.Time{}, err
	}
	return cert.Leaf.NotAfter.Add(-lifeOf(cert.Leaf) / 6), nil
}

// renewal is when two thirds of a certificate's life are over.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-lifeOf(leaf) / 3)
}

// lifeOf is how long a certificate was to live when it was made.
func lifeOf(leaf *x509.Certificate) time.Duration {
	return max(leaf.NotAfter.Sub(leaf.NotBefore)-Backdate, MinLife)
}
