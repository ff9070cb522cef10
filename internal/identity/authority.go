package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Life is how long certificates are valid, if nobody says otherwise. They are renewed after two
// thirds of it, so that a renewal may fail for days.
const Life = 30 * 24 * time.Hour

// MinLife is the shortest life of a certificate.
const MinLife = time.Minute

// authorityLife is long, and goes back as far: the clock may be set right after the first start.
const authorityLife = 20 * 365 * 24 * time.Hour

// AuthorityConfig says where a fleet's authority is.
type AuthorityConfig struct {
	Fleet string
	// Dir has ca.pem and ca.key; they are made if there are none. Not used where CertFile is set.
	Dir string
	// CertFile and KeyFile are an authority of the operator's own, in PEM. The certificate that
	// signs is the first in CertFile; the others are trusted, too.
	CertFile, KeyFile string
	Life              time.Duration    // of certificates; 0: Life
	Now               func() time.Time // nil: time.Now
}

// Authority is a fleet's authority: it makes the certificates of all parts. Safe for concurrent
// use.
type Authority struct {
	cfg   AuthorityConfig
	fleet string
	life  time.Duration
	now   func() time.Time

	files sync.Mutex // held while the files are read or changed
	held  atomic.Pointer[trusted]
}

// trusted is what an authority's files say.
type trusted struct {
	certs   []*x509.Certificate // those that are trusted; the first signs
	pem     []byte              // of certs
	version string
	roots   *x509.CertPool
	key     crypto.Signer
	peers   *checker
	phase   Phase
}

// Files of an authority's directory.
const (
	caFile      = "ca.pem"
	caKeyFile   = "ca.key"
	nextKeyFile = "next.key" // of an authority that comes in place of the one of ca.key
)

// OpenAuthority returns a fleet's authority, and makes it if there is none yet. Corrupt or
// NotFound: its files can't be used, or the key of a certificate is gone.
func OpenAuthority(cfg AuthorityConfig) (*Authority, error) {
	a := &Authority{cfg: cfg, fleet: cfg.Fleet, life: cfg.Life, now: cfg.Now}
	if a.now == nil {
		a.now = time.Now
	}
	if a.life == 0 {
		a.life = Life
	}
	if a.life < MinLife {
		return nil, errs.New(errs.Invalid, "certificates with a life of %s", a.life).
			WithRemedy("give them at least %s", MinLife)
	}
	if cfg.CertFile == "" {
		if _, err := os.Stat(a.certFile()); errors.Is(err, fs.ErrNotExist) {
			if err := a.make(cfg.Dir); err != nil {
				return nil, errs.Wrap(errs.Internal, err, "make the fleet's authority")
			}
		}
	}
	_, err := a.Reload()
	return a, err
}

func (a *Authority) certFile() string {
	if a.cfg.CertFile != "" {
		return a.cfg.CertFile
	}
	return filepath.Join(a.cfg.Dir, caFile)
}

func (a *Authority) keyFile() string {
	if a.cfg.CertFile != "" {
		return a.cfg.KeyFile
	}
	return filepath.Join(a.cfg.Dir, caKeyFile)
}

// make writes a new key and its certificate, which comes last: without it there is no authority.
func (a *Authority) make(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cert, key, err := a.newAuthority()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, caKeyFile), key, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, caFile), cert, 0o644)
}

// newAuthority returns a new key and its certificate, in PEM.
func (a *Authority) newAuthority() (certPEM, keyPEM []byte, err error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := a.now()
	cert := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Sluice fleet " + a.fleet},
		NotBefore: now.Add(-authorityLife), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key, "")
	return encodeCerts(der), keyPEM, err
}

// PEM returns the certificates that a part of the fleet is to trust.
func (a *Authority) PEM() []byte { return a.held.Load().pem }

// Hash identifies the certificate that signs. A join token carries it.
func (a *Authority) Hash() string { return hashOf(a.held.Load().certs[0]) }

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Check returns whose a chain of certificates is, the peer's own first. Denied: there is none, it
// is not of this fleet's authority, its name is of no part of the fleet, or it isn't valid now.
func (a *Authority) Check(chain []*x509.Certificate) (Name, error) {
	return a.held.Load().peers.check(chain, a.now())
}

// Answer is what a worker gets for its request, in PEM.
type Answer struct{ Certificate, Authority []byte }

// IssueWorker answers a worker's request. Only the public key in it counts.
func (a *Authority) IssueWorker(worker string, term int64, request []byte) (Answer, error) {
	public, err := parseRequest(request)
	if err != nil {
		return Answer{}, err
	}
	t := a.held.Load()
	der, err := a.sign(t, Name{Fleet: a.fleet, Role: Worker, Worker: worker, Term: term}, public,
		nil)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Certificate: encodeCerts(der, t.certs[0].Raw), Authority: t.pem}, nil
}

// sign makes a certificate for a name, valid for hosts as well, and for worker.sluice or
// server.sluice.
func (a *Authority) sign(t *trusted, name Name, public crypto.PublicKey,
	hosts []string) ([]byte, error) {
	now, ca := a.now(), t.certs[0]
	cert := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name.who()},
		NotBefore: later(now.Add(-Backdate), ca.NotBefore),
		NotAfter:  earlier(now.Add(a.life), ca.NotAfter),
		KeyUsage:  x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth,
			x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	cert.URIs = append(cert.URIs, name.uri())
	// For programs that check a name and know nothing of fleets, such as Prometheus.
	addHosts(cert, append(hosts, string(name.Role)+".sluice"))
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, public, t.key)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a certificate for %s", name.who())
	}
	return der, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// serial is random, as nobody counts certificates.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}
