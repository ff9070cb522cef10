package identity

import (
	"crypto/x509"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Backdate is how far the clocks of two hosts may differ: a certificate is valid from that long
// before it was made.
const Backdate = time.Hour

// checkChain returns whose a chain of certificates is, the peer's own first. Denied: there is none,
// no authority in roots vouches for it, or its name is not of this fleet.
func checkChain(roots *x509.CertPool, fleet string, chain []*x509.Certificate) (Name, error) {
	if len(chain) == 0 {
		return Name{}, errs.New(errs.Denied, "no certificate came with the connection")
	}
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// At a time at which the certificate is valid: clocks come after.
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between,
		CurrentTime: leaf.NotBefore,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return Name{}, errs.Wrap(errs.Denied, err,
			"the certificate is not of the authority of fleet %s", fleet)
	}
	return nameOf(leaf, fleet)
}

// checkClock is Denied for a certificate that isn't valid by the clock of where, with what a person
// can do about it.
func checkClock(name Name, leaf *x509.Certificate, now time.Time, where string) error {
	when := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case now.Before(leaf.NotBefore):
		return errs.New(errs.Denied,
			"the certificate of %s is valid from %s, and it is %s by the clock of %s",
			name.who(), when(leaf.NotBefore), when(now), where).
			WithRemedy("set the clock of %s, which is at least %s behind", where,
				leaf.NotBefore.Add(Backdate).Sub(now).Round(time.Second))
	case now.After(leaf.NotAfter):
		return errs.New(errs.Denied,
			"the certificate of %s has expired: it was valid until %s, and it is %s by the clock of %s",
			name.who(), when(leaf.NotAfter), when(now), where).
			WithRemedy("if the clock of %s is ahead, set it; else %s", where,
				name.newCertificate())
	}
	return nil
}

func (n Name) who() string {
	if n.Role == Worker {
		return "worker " + n.Worker
	}
	return "the " + string(n.Role)
}

// newCertificate says how whoever has the name gets a certificate.
func (n Name) newCertificate() string {
	if n.Role == Worker {
		return "join it anew: sluice worker token create --name " + n.Worker
	}
	return "restart the server"
}
