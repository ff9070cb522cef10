package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Held is a worker's identity: its key, its certificate and the authority that it trusts, in one
// file. Safe for concurrent use.
type Held struct {
	file string
	now  func() time.Time

	mu    sync.Mutex
	name  Name
	cert  *tls.Certificate
	peers *checker
	// version of the authority that the file has
	version     string
	authorities []string // Hash of each
	token       string   // id of the token by which it was got
	// renew is when the certificate is to be renewed although it isn't due; zero: then.
	renew time.Time
}

var _ Own = (*Held)(nil)

// Files of a worker's identity.
const (
	heldFile    = "identity.pem"
	pendingFile = "join.key" // the key of a join whose answer has not come yet
)

// tokenHeader says in a file for which token the key is.
const tokenHeader = "Join-Token"

// Load returns the identity that a directory holds. now is nil for time.Now. NotFound: it holds
// none.
func Load(dir string, now func() time.Time) (*Held, error) {
	if now == nil {
		now = time.Now
	}
	h := &Held{file: filepath.Join(dir, heldFile), now: now}
	data, err := os.ReadFile(h.file)
	if err != nil {
		kind := errs.Internal
		if errors.Is(err, fs.ErrNotExist) {
			kind = errs.NotFound
		}
		return nil, errs.Wrap(kind, err, "read the worker's identity")
	}
	if err := h.take(data); err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "read the worker's identity from %s", h.file).
			WithRemedy("remove the file and join anew, with a new join token")
	}
	// A process begins with a new one, so that a restart makes a worker trust what the server
	// trusts by now. Not each of many restarts.
	if leaf := h.cert.Leaf; now().Sub(leaf.NotBefore) > 2*Backdate {
		h.renew = now()
	}
	return h, nil
}

// take makes the content of a file the identity.
func (h *Held) take(data []byte) error {
	key, err := decodeKey(data)
	if err != nil {
		return err
	}
	certs, err := decodeCerts(data)
	if err != nil {
		return err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certs[0].PublicKey) {
		return errors.New("the certificate is not of the key")
	}
	roots, cert := x509.NewCertPool(), &tls.Certificate{PrivateKey: key, Leaf: certs[0],
		Certificate: [][]byte{certs[0].Raw}}
	var authorities []string
	for _, c := range certs[1:] {
		roots.AddCert(c)
		authorities = append(authorities, hashOf(c))
	}
	fleet := fleetOf(certs[0])
	name, err := checkChain(roots, fleet, certs[:1])
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renew = time.Time{}
	h.name, h.cert, h.token = name, cert, tokenOf(data)
	h.authorities = authorities
	h.version = versionOf(raw(certs[1:]))
	h.peers = &checker{roots: roots, fleet: fleet, where: "this host"}
	return nil
}

// fleetOf is the fleet that a certificate is for, as far as it can be told from its name.
func fleetOf(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if u.Scheme == scheme {
			return fleetOfHost(u.Host)
		}
	}
	return ""
}

// write makes a key, its certificate and the authority's the identity, in the file first.
func (h *Held) write(key crypto.Signer, a Answer, token string) error {
	data, err := encodeKey(key, token)
	if err != nil {
		return err
	}
	file := bytes.NewBuffer(data)
	certs, err := decodeCerts(a.Certificate)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "read the certificate that the server sent")
	}
	file.Write(encodeCerts(certs[0].Raw))
	file.Write(a.Authority)
	trial := &Held{now: h.now}
	if err := trial.take(file.Bytes()); err != nil {
		return errs.Wrap(errs.Internal, err, "the certificate that the server sent can't be used")
	}
	if was := h.Name(); was.Worker != "" && trial.name != was {
		return errs.New(errs.Internal, "the server sent a certificate of %s instead of one of %s",
			trial.name, was)
	}
	if err := atomicfile.Write(h.file, file.Bytes(), 0o600); err != nil {
		return errs.Wrap(errs.Internal, err, "keep the worker's identity")
	}
	return h.take(file.Bytes())
}

// Ask asks the server to answer a request for a certificate.
type Ask func(ctx context.Context, request []byte) (Answer, error)

// Join gets a worker a certificate by a token, its first or another than what dir holds. The key is
// kept before the server is asked, so that who dies before the answer is kept asks for the same
// again. Another token gets another key: the one of before may be why somebody joins anew.
func Join(ctx context.Context, dir string, token Token, ask Ask) (*Held, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make the directory of the worker's identity")
	}
	pending := filepath.Join(dir, pendingFile)
	key, err := pendingKey(pending, token.ID)
	if err != nil {
		return nil, err
	}
	request, err := newRequest(key)
	if err != nil {
		return nil, err
	}
	answer, err := ask(ctx, request)
	if err != nil {
		return nil, err
	}
	h := &Held{file: filepath.Join(dir, heldFile), now: time.Now}
	if err := h.write(key, answer, token.ID); err != nil {
		return nil, err
	}
	if err := os.Remove(pending); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "forget the join that is done")
	}
	return h, nil
}

// pendingKey returns the key that is kept for a token; a new one, if there is none.
func pendingKey(file, token string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.Wrap(errs.Internal, err, "read the key of an earlier join")
	}
	if err == nil && tokenOf(data) == token {
		if key, err := decodeKey(data); err == nil {
			return key, nil
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make the worker's key")
	}
	data, err = encodeKey(key, token)
	if err != nil {
		return nil, err
	}
	return key, atomicfile.Write(file, data, 0o600)
}

// Renew gets a certificate of a new key in place of the present one.
func (h *Held) Renew(ctx context.Context, ask Ask) error {
	key, err := newKey()
	if err != nil {
		return errs.Wrap(errs.Internal, err, "make the worker's key")
	}
	request, err := newRequest(key)
	if err != nil {
		return err
	}
	answer, err := ask(ctx, request)
	if err != nil {
		return err
	}
	return h.write(key, answer, h.Token())
}

// Renewal returns when the certificate is to be renewed, from when on it is worth a warning that it
// isn't, and when it expires.
func (h *Held) Renewal() (due, late, expires time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	leaf := h.cert.Leaf
	due = renewal(leaf)
	late = due.Add(min(time.Hour, lifeOf(leaf)/6))
	if !h.renew.IsZero() && h.renew.Before(due) {
		due = h.renew
	}
	return due, late, leaf.NotAfter
}

// Name returns whose the certificate is.
func (h *Held) Name() Name {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.name
}

// Token returns the id of the join token by which the certificate was got.
func (h *Held) Token() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token
}

// Check implements Own.
func (h *Held) Check(chain []*x509.Certificate) (Name, error) {
	h.mu.Lock()
	peers := h.peers
	h.mu.Unlock()
	return peers.check(chain, h.now())
}

// Version is that of the authority, as the server's Authority says it, when the certificate was
// made.
func (h *Held) Version() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

// Trusts reports whether the certificate with a Hash of an authority is among those trusted.
func (h *Held) Trusts(hash string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.authorities, hash)
}

// Certificate implements Own.
func (h *Held) Certificate() (*tls.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cert, nil
}
