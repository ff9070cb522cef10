package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// clock is a host's clock, that a test sets.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time      { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) set(d time.Duration) { c.off.Store(int64(d)) }

// whoami answers whom a server of an authority takes the caller for, or why for nobody.
func whoami(a *identity.Authority) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, err := a.Check(r.TLS.PeerCertificates)
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, err.Error()+" TRY "+errs.RemedyOf(err))
			return
		}
		_, _ = io.WriteString(w, name.String())
	})
}

func ask(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestBothKnowEachOther over a real connection, at once and when it is resumed.
func TestBothKnowEachOther(t *testing.T) {
	a := identitytest.Authority(t, nil)
	var resumed atomic.Int32
	url := identitytest.Serve(t, a.Self(), http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.TLS.DidResume {
				resumed.Add(1)
			}
			if r.TLS.Version != tls.VersionTLS13 || r.ProtoMajor != 1 {
				t.Errorf("TLS %x, %s", r.TLS.Version, r.Proto)
			}
			whoami(a).ServeHTTP(w, r)
		}))
	c := identitytest.Client(t, identitytest.Worker(t, a, "w1", 7), identity.IsServer)
	for range 3 {
		if status, who := ask(t, c, url); status != 200 ||
			who != "sluice://test/worker/w1?term=7" {
			t.Errorf("%d %s", status, who)
		}
		c.CloseIdleConnections()
	}
	if resumed.Load() != 2 {
		t.Errorf("%d of 2 further connections were resumed", resumed.Load())
	}
	if status, why := ask(t, identitytest.Client(t, nil, nil), url); status != 403 ||
		!strings.Contains(why, "no certificate came") {
		t.Errorf("nobody: %d %s", status, why)
	}
}

// forged makes a certificate that says it is of a worker, as sign makes it.
func forged(t *testing.T, parent tls.Certificate, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := url.Parse("sluice://test/worker/w1?term=1")
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(cert)
	}
	signer, issuer := parent.PrivateKey, parent.Leaf
	if signer == nil {
		signer, issuer = key, cert
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	chain := [][]byte{der}
	return tls.Certificate{Certificate: append(chain, parent.Certificate...), PrivateKey: key}
}

// TestTheServerRefuses each wrong certificate with a reason, on a connection that stands.
func TestTheServerRefuses(t *testing.T) {
	var server clock
	a := identitytest.Authority(t, server.now)
	url := identitytest.Serve(t, a.Self(), whoami(a))
	right, err := identitytest.Worker(t, a, "w1", 1).Certificate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identitytest.Worker(t, identitytest.Authority(t, nil), "w1", 1).Certificate()
	if err != nil {
		t.Fatal(err)
	}
	none, day := tls.Certificate{}, 24*time.Hour
	for name, c := range map[string]struct {
		cert tls.Certificate
		off  time.Duration
		says string
	}{
		"another authority's": {cert: *other, says: "not of the authority of fleet test"},
		"its own":             {cert: forged(t, none, nil), says: "not of the authority"},
		"signed by a worker":  {cert: forged(t, *right, nil), says: "not of the authority"},
		"expired":             {cert: *right, off: 31 * day, says: "has expired"},
		"expired, told how":   {cert: *right, off: 31 * day, says: "token create --name w1"},
		"not yet valid":       {cert: *right, off: -26 * time.Hour, says: "is valid from"},
		"behind, by how much": {cert: *right, off: -26 * time.Hour, says: "which is at least 2"},
	} {
		server.set(c.off)
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &c.cert, nil
			}}}
		status, why := ask(t, &http.Client{Transport: transport}, url)
		if status != 403 || !strings.Contains(why, c.says) {
			t.Errorf("%s: %d %s, want %q", name, status, why, c.says)
		}
		transport.CloseIdleConnections()
	}
	// Clocks that differ by less are survived, and a connection that stands is looked at again.
	for _, off := range []time.Duration{-50 * time.Minute, 0, 50 * time.Minute} {
		server.set(off)
		if name, err := a.Check([]*x509.Certificate{right.Leaf}); err != nil ||
			name.Worker != "w1" {
			t.Errorf("a clock off by %s: %v", off, err)
		}
	}
}

// TestTheWorkerRefuses whatever isn't the server of its fleet.
func TestTheWorkerRefuses(t *testing.T) {
	a, foreign := identitytest.Authority(t, nil), identitytest.Authority(t, nil)
	w1 := identitytest.Worker(t, a, "w1", 1)
	for name, c := range map[string]struct {
		peer   identity.Own
		accept func(identity.Name) error
		says   string
	}{
		"another fleet's server": {foreign.Self(), identity.IsServer, "not of the authority"},
		"a worker as the server": {identitytest.Worker(t, a, "w2", 1), identity.IsServer,
			"not of the fleet's server"},
		"another worker": {identitytest.Worker(t, a, "w2", 1), identity.IsWorker("w3"),
			"worker w2, and not of worker w3"},
		"the server as a worker": {a.Self(), identity.IsWorker("w1"), "not of worker w1"},
	} {
		url := identitytest.Serve(t, c.peer, whoami(a))
		_, err := identitytest.Client(t, w1, c.accept).Get(url)
		var known *errs.Error
		if !errors.As(err, &known) || known.Kind != errs.Denied ||
			!strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// TestJoiningFindsTheServer by the token alone: nobody else gets to see it.
func TestJoiningFindsTheServer(t *testing.T) {
	a, foreign := identitytest.Authority(t, nil), identitytest.Authority(t, nil)
	token, err := identity.ParseToken(identity.NewToken(a.Hash()).String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: identity.JoiningConfig(token), DisableKeepAlives: true}}
	if status, _ := ask(t, client, identitytest.Serve(t, a.Self(), whoami(a))); status != 403 {
		t.Errorf("the server of the token: %d", status)
	}
	for name, peer := range map[string]identity.Own{"another fleet": foreign.Self(),
		"a worker of the fleet":                 identitytest.Worker(t, a, "w1", 1),
		"a worker, with the authority added on": liar{identitytest.Worker(t, a, "w1", 1), a},
		"another, with the authority added on":  liar{foreign.Self(), a}} {
		if _, err := client.Get(identitytest.Serve(t, peer, whoami(a))); err == nil {
			t.Errorf("%s is taken for the server", name)
		}
	}
	for _, bad := range []string{"", "x", "sluice-join.a.b", "sluice-join.a..c", "a.b.c.d"} {
		if _, err := identity.ParseToken(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// liar shows its own certificate, and behind it an authority.
type liar struct {
	identity.Own
	of *identity.Authority
}

func (l liar) Certificate() (*tls.Certificate, error) {
	own, err := l.Own.Certificate()
	if err != nil {
		return nil, err
	}
	theirs, err := l.of.Self().Certificate()
	if err != nil {
		return nil, err
	}
	cert := *own
	cert.Certificate = [][]byte{own.Certificate[0], theirs.Certificate[1]}
	return &cert, nil
}
