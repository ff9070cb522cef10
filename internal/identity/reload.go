package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Reload reads the authority's files again, and reports whether they say something new. After an
// error the former content counts. Corrupt or NotFound: the files can't be used.
func (a *Authority) Reload() (changed bool, err error) {
	a.files.Lock()
	defer a.files.Unlock()
	return a.reload()
}

// reload is Reload for who holds files.
func (a *Authority) reload() (changed bool, err error) {
	t, err := a.read()
	if err != nil {
		return false, err
	}
	old := a.held.Load()
	if old != nil && old.version == t.version && old.phase == t.phase &&
		samePublic(old.key, t.key.Public()) {
		return false, nil
	}
	a.held.Store(t)
	return true, nil
}

// unusable is the error for one of the authority's files.
func unusable(err error, kind errs.Kind, file string) error {
	return errs.Wrap(kind, err, "read the fleet's authority from %s", file).
		WithRemedy("put the file back from a backup; how to get on without one is in docs/operations.md")
}

func (a *Authority) read() (*trusted, error) {
	file := a.certFile()
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, unusable(err, errs.NotFound, file)
	}
	t := &trusted{phase: Settled}
	if t.certs, err = decodeCerts(data); err != nil {
		return nil, unusable(err, errs.Corrupt, file)
	}
	switch first := t.certs[0]; {
	case !first.IsCA:
		return nil, unusable(errors.New("its first certificate is not an authority's"),
			errs.Corrupt, file)
	case a.now().After(first.NotAfter):
		return nil, unusable(errors.New("the authority's certificate has expired"), errs.Corrupt,
			file)
	}
	if err := a.readKeys(t); err != nil {
		return nil, err
	}
	t.roots = x509.NewCertPool()
	for _, c := range t.certs {
		t.roots.AddCert(c)
	}
	ders := raw(t.certs)
	t.pem, t.version = encodeCerts(ders...), versionOf(ders)
	t.peers = &checker{roots: t.roots, fleet: a.fleet, where: "the server"}
	return t, nil
}

// readKeys finds the key that signs, and says by the other how far a rotation has come. What a
// server that died has left half done at the end of one is completed.
func (a *Authority) readKeys(t *trusted) error {
	signs := t.certs[0].PublicKey
	next, err := a.nextKey()
	if err != nil {
		return err
	}
	key, err := readKey(a.keyFile())
	switch {
	case err == nil && samePublic(key, signs):
		t.key = key
		if next != nil && holds(t.certs, next) {
			t.phase = Begun
		}
		return nil
	case next != nil && samePublic(next, signs):
		t.key, t.phase = next, Switched
		if err == nil && !holds(t.certs, key) {
			t.phase = Settled
			return a.settle()
		}
		return nil
	case err != nil:
		return err
	}
	return unusable(errors.New("it is not the key of the first certificate in "+a.certFile()),
		errs.Corrupt, a.keyFile())
}

// nextKey returns the key of an authority that is to come; nil: none is.
func (a *Authority) nextKey() (crypto.Signer, error) {
	if a.cfg.CertFile != "" {
		return nil, nil
	}
	key, err := readKey(filepath.Join(a.cfg.Dir, nextKeyFile))
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	return key, err
}

func readKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unusable(err, errs.NotFound, file)
	} else if err != nil {
		return nil, unusable(err, errs.Internal, file)
	}
	key, err := decodeKey(data)
	if err != nil {
		return nil, unusable(err, errs.Corrupt, file)
	}
	return key, nil
}

func samePublic(key crypto.Signer, public crypto.PublicKey) bool {
	own, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(public)
}

// holds reports whether one of the certificates is of a key.
func holds(certs []*x509.Certificate, key crypto.Signer) bool { return indexOf(certs, key) >= 0 }

// indexOf returns which of the certificates is of a key; -1: none.
func indexOf(certs []*x509.Certificate, key crypto.Signer) int {
	for i, c := range certs {
		if samePublic(key, c.PublicKey) {
			return i
		}
	}
	return -1
}

func raw(certs []*x509.Certificate) [][]byte {
	ders := make([][]byte, 0, len(certs))
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return ders
}

// versionOf identifies what is trusted, and who signs: the first.
func versionOf(ders [][]byte) string {
	sum := sha256.New()
	for _, der := range ders {
		sum.Write(der)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
