package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"slices"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// newRequest returns a request for a certificate of a key, in PEM. It names nobody: who asks is
// known otherwise.
func newRequest(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a request for a certificate")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// CheckRequest returns what identifies the key of a request for a certificate. Invalid: it isn't
// one, is not signed by its key, or its key is of a kind that we don't take.
func CheckRequest(request []byte) (string, error) {
	public, err := parseRequest(request)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err, "encode the request's key")
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func parseRequest(request []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errs.New(errs.Invalid, "there is no request for a certificate in PEM")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "the request for a certificate can't be taken")
	}
	switch r.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return r.PublicKey, nil
	}
	return nil, errs.New(errs.Invalid, "a key of kind %s is not taken", r.PublicKeyAlgorithm).
		WithRemedy("use ECDSA or Ed25519")
}

// addHosts makes a certificate valid for host names and addresses, too.
func addHosts(cert *x509.Certificate, hosts []string) {
	for _, h := range slices.Compact(slices.Sorted(slices.Values(hosts))) {
		if ip := net.ParseIP(h); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, h)
		}
	}
}
