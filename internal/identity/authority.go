package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
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
	fleet string
	life  time.Duration
	now   func() time.Time
	certs []*x509.Certificate // those that are trusted; the first signs
	pem   []byte              // of certs
	roots *x509.CertPool
	key   crypto.Signer
	peers *checker
}

// Files of an authority's directory.
const (
	caFile    = "ca.pem"
	caKeyFile = "ca.key"
)

// OpenAuthority returns a fleet's authority, and makes it if there is none yet. Corrupt or
// NotFound: its files can't be used, or the key of a certificate is gone.
func OpenAuthority(cfg AuthorityConfig) (*Authority, error) {
	a := &Authority{fleet: cfg.Fleet, life: cfg.Life, now: cfg.Now}
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
	cert, key := cfg.CertFile, cfg.KeyFile
	if cert == "" {
		cert, key = filepath.Join(cfg.Dir, caFile), filepath.Join(cfg.Dir, caKeyFile)
		if _, err := os.Stat(cert); errors.Is(err, fs.ErrNotExist) {
			if err := a.make(cfg.Dir); err != nil {
				return nil, errs.Wrap(errs.Internal, err, "make the fleet's authority")
			}
		}
	}
	return a, a.load(cert, key)
}

// make writes a new key and its certificate, which comes last: without it there is no authority.
func (a *Authority) make(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
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
		return err
	}
	keyPEM, err := encodeKey(key, "")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, caKeyFile), keyPEM, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, caFile), encodeCerts(der), 0o644)
}

func (a *Authority) load(certFile, keyFile string) error {
	remedy := func(err error, kind errs.Kind, file string) error {
		return errs.Wrap(kind, err, "read the fleet's authority from %s", file).
			WithRemedy("put the file back from a backup; how to get on without one is in docs/operations.md")
	}
	data, err := os.ReadFile(certFile)
	if err != nil {
		return remedy(err, errs.NotFound, certFile)
	}
	if a.certs, err = decodeCerts(data); err != nil {
		return remedy(err, errs.Corrupt, certFile)
	}
	keyData, err := os.ReadFile(keyFile)
	if err != nil {
		return remedy(err, errs.NotFound, keyFile)
	}
	if a.key, err = decodeKey(keyData); err != nil {
		return remedy(err, errs.Corrupt, keyFile)
	}
	first := a.certs[0]
	public, ok := a.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !first.IsCA:
		return remedy(errors.New("its first certificate is not an authority's"), errs.Corrupt,
			certFile)
	case !ok || !public.Equal(first.PublicKey):
		return remedy(errors.New("it is not the key of the first certificate in "+certFile),
			errs.Corrupt, keyFile)
	case a.now().After(first.NotAfter):
		return remedy(errors.New("the authority's certificate has expired"), errs.Corrupt, certFile)
	}
	a.roots = x509.NewCertPool()
	var ders [][]byte
	for _, c := range a.certs {
		a.roots.AddCert(c)
		ders = append(ders, c.Raw)
	}
	a.pem = encodeCerts(ders...)
	a.peers = &checker{roots: a.roots, fleet: a.fleet, where: "the server"}
	return nil
}

// PEM returns the certificates that a part of the fleet is to trust.
func (a *Authority) PEM() []byte { return a.pem }

// Hash identifies the certificate that signs. A join token carries it.
func (a *Authority) Hash() string { return hashOf(a.certs[0]) }

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Check returns whose a chain of certificates is, the peer's own first. Denied: there is none, it
// is not of this fleet's authority, its name is of no part of the fleet, or it isn't valid now.
func (a *Authority) Check(chain []*x509.Certificate) (Name, error) {
	return a.peers.check(chain, a.now())
}

// Answer is what a worker gets for its request, in PEM.
type Answer struct{ Certificate, Authority []byte }

// IssueWorker answers a worker's request. Only the public key in it counts.
func (a *Authority) IssueWorker(worker string, term int64, request []byte) (Answer, error) {
	public, err := parseRequest(request)
	if err != nil {
		return Answer{}, err
	}
	der, err := a.sign(Name{Fleet: a.fleet, Role: Worker, Worker: worker, Term: term}, public, nil)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Certificate: encodeCerts(der, a.certs[0].Raw), Authority: a.pem}, nil
}

// sign makes a certificate for a name, valid for hosts as well, and for worker.sluice or
// server.sluice.
func (a *Authority) sign(name Name, public crypto.PublicKey, hosts []string) ([]byte, error) {
	now, ca := a.now(), a.certs[0]
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
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, public, a.key)
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

// encodeKey returns a key in PEM, which says for which join token it is; "": for none.
func encodeKey(key crypto.Signer, token string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode a key")
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if token != "" {
		block.Headers = map[string]string{tokenHeader: token}
	}
	return pem.EncodeToMemory(block), nil
}

// tokenOf returns for which join token the key is with which a file begins; "": for none.
func tokenOf(data []byte) string {
	if block, _ := pem.Decode(data); block != nil {
		return block.Headers[tokenHeader]
	}
	return ""
}

func encodeCerts(ders ...[]byte) []byte {
	var out bytes.Buffer
	for _, der := range ders {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out.Bytes()
}

// decodeCerts returns all certificates of a PEM file, of which there must be one.
func decodeCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return certs, nil
}

// decodeKey returns the first private key of a PEM file.
func decodeKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("it holds no private key in PEM")
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, errors.New("its private key can't sign")
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		}
	}
}
