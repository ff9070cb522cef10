package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Phase is how far a rotation of the authority has come.
type Phase string

// Phases. In all of them one replacement of ca.pem is what happens, so that a death leaves the
// phase before or the one after.
const (
	Settled  Phase = "settled"  // there is none
	Begun    Phase = "begun"    // the old one signs, both are trusted
	Switched Phase = "switched" // the new one signs, both are trusted
)

// Step is what is to happen to the authority.
type Step string

// Steps of a rotation. Each may be repeated.
const (
	Begin  Step = "begin"  // make another authority, which is trusted as well
	Switch Step = "switch" // let it sign
	Finish Step = "finish" // trust the old one no more
	Abort  Step = "abort"  // of one that has begun: forget the new one
)

// Rotate takes a step. Conflict: it isn't the next one. Unsupported: the authority is the
// operator's own. Invalid: there is no such step.
func (a *Authority) Rotate(step Step) error {
	if a.cfg.CertFile != "" {
		return errs.New(errs.Unsupported, "the authority is the operator's own, in %s",
			a.cfg.CertFile).
			WithRemedy("change the files of --ca-cert and --ca-key; see docs/operations.md, Another authority")
	}
	a.files.Lock()
	defer a.files.Unlock()
	if _, err := a.reload(); err != nil {
		return err
	}
	t := a.held.Load()
	var err error
	switch {
	case step == Begin && t.phase == Settled:
		err = a.begin(t)
	case step == Switch && t.phase == Begun:
		err = a.turn(t)
	case step == Finish && t.phase == Switched:
		err = a.finish(t)
	case step == Abort && t.phase == Begun:
		err = a.abort(t)
	case step == Begin && t.phase == Begun, step == Switch && t.phase == Switched,
		(step == Finish || step == Abort) && t.phase == Settled:
		return nil // it has been taken
	case !slices.Contains([]Step{Begin, Switch, Finish, Abort}, step):
		return errs.New(errs.Invalid, "there is no step %q of a rotation", step).
			WithRemedy("use begin, switch, finish or abort")
	default:
		return errs.New(errs.Conflict, "the rotation is %s, and %s is not its next step", t.phase,
			step).WithRemedy("%s", t.phase.next())
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "%s the rotation of the fleet's authority", step)
	}
	_, err = a.reload()
	return err
}

func (p Phase) next() string {
	switch p {
	case Begun:
		return "go on with: sluice ca rotate switch; or end it with: sluice ca rotate abort"
	case Switched:
		return "go on with: sluice ca rotate finish"
	case Settled:
	}
	return "begin with: sluice ca rotate begin"
}

// begin: a death before the last line leaves a key that nobody trusts, and that is replaced.
func (a *Authority) begin(t *trusted) error {
	cert, key, err := a.newAuthority()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.cfg.Dir, nextKeyFile), key, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(a.certFile(), append(slices.Clone(t.pem), cert...), 0o644)
}

// turn makes the certificate of the next key the first.
func (a *Authority) turn(t *trusted) error {
	next, err := a.nextKey()
	if err != nil {
		return err
	}
	i := indexOf(t.certs, next)
	rest := slices.Delete(slices.Clone(t.certs), i, i+1)
	certs := append([]*x509.Certificate{t.certs[i]}, rest...)
	return atomicfile.Write(a.certFile(), encodeCerts(raw(certs)...), 0o644)
}

// finish takes the old authority's certificate away, and then its key.
func (a *Authority) finish(t *trusted) error {
	certs := slices.Clone(t.certs)
	old, err := readKey(a.keyFile())
	switch {
	case err == nil:
		certs = slices.DeleteFunc(certs, func(c *x509.Certificate) bool {
			return samePublic(old, c.PublicKey)
		})
	case errs.Is(err, errs.NotFound): // then nobody knows which it was: all others go
		certs = certs[:1]
	default:
		return err
	}
	if err := atomicfile.Write(a.certFile(), encodeCerts(raw(certs)...), 0o644); err != nil {
		return err
	}
	return a.settle()
}

// settle puts the key that signs in place of the one that has signed.
func (a *Authority) settle() error {
	return atomicfile.Rename(filepath.Join(a.cfg.Dir, nextKeyFile), a.keyFile())
}

// abort: a death before the last line leaves a key that nobody trusts.
func (a *Authority) abort(t *trusted) error {
	next, err := a.nextKey()
	if err != nil {
		return err
	}
	i := indexOf(t.certs, next)
	certs := slices.Delete(slices.Clone(t.certs), i, i+1)
	if err := atomicfile.Write(a.certFile(), encodeCerts(raw(certs)...), 0o644); err != nil {
		return err
	}
	return os.Remove(filepath.Join(a.cfg.Dir, nextKeyFile))
}

// Trusted is one certificate of the authority's.
type Trusted struct {
	Fingerprint         string // SHA-256, in hex
	Subject             string
	NotBefore, NotAfter time.Time
	Signs               bool
}

// View is what an authority's files say.
type View struct {
	Phase   Phase
	Version string // of what is trusted, and who signs
	PEM     []byte
	Certs   []Trusted
}

// View returns what counts now.
func (a *Authority) View() View {
	t := a.held.Load()
	v := View{Phase: t.phase, Version: t.version, PEM: t.pem}
	for i, c := range t.certs {
		sum := sha256.Sum256(c.Raw)
		v.Certs = append(v.Certs, Trusted{Fingerprint: hex.EncodeToString(sum[:]),
			Subject: c.Subject.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			Signs: i == 0})
	}
	return v
}
