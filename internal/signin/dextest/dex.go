// Package dextest runs a real OpenID Connect issuer for a test: dex, over TLS on a free port of the
// loopback interface, which ends with the test. It is found in .cache/bin of the repository, or
// installed there by scripts/install-dex.sh.
package dextest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/servertest"
)

// ClientID is that of the fleet.
const ClientID = "sluice"

const startWait = time.Minute

// Dex is a running issuer.
type Dex struct {
	URL    string // the issuer
	CA     []byte // that vouches for it, in PEM
	CAFile string

	addr, dir, binary string
	http              *http.Client
	program           *servertest.Server
}

// Start starts an issuer whose ID tokens last for life.
func Start(t testing.TB, life time.Duration) *Dex {
	t.Helper()
	d := &Dex{dir: t.TempDir(), binary: servertest.Install(t, "install-dex.sh")}
	t.Cleanup(d.Kill)
	d.certify(t)
	servertest.OnFreePort(t, func(addr string) error {
		d.addr, d.URL = addr, "https://"+addr+"/dex"
		d.write(t, "dex.yaml", []byte(d.config(life)))
		return d.start()
	})
	return d
}

// Kill ends the issuer at once. It may be called any number of times.
func (d *Dex) Kill() { d.program.Kill() }

// Restart starts the issuer again where it was before Kill. It has forgotten all, and has new keys.
func (d *Dex) Restart(t testing.TB) {
	t.Helper()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
}

// config has three ways to sign in: a form, a proxy's headers with any name and groups, and one
// person of group authors at once, the only one that is renewed with groups.
func (d *Dex) config(life time.Duration) string {
	return fmt.Sprintf(`issuer: %s
storage: {type: memory}
web: {https: %q, tlsCert: %q, tlsKey: %q}
oauth2: {skipApprovalScreen: true}
expiry: {idTokens: %q, deviceRequests: "5m"}
staticClients:
- {id: %s, name: Sluice, public: true}
connectors:
- {type: mockCallback, id: mock, name: Mock}
- {type: authproxy, id: proxy, name: Proxy}
enablePasswordDB: true
staticPasswords: # password
- email: admin@example.com
  hash: "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
  username: admin
  userID: "08a8684b-db88-4b73-90a9-3cd1661f5466"
`, d.URL, d.addr, d.file("dex.pem"), d.file("dex.key"), life, ClientID)
}

func (d *Dex) file(name string) string { return filepath.Join(d.dir, name) }

func (d *Dex) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(d.file(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify makes a small authority, and a certificate of it for the issuer.
func (d *Dex) certify(t testing.TB) {
	t.Helper()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	caKey, key := newKey(t), newKey(t)
	signed := func(what *x509.Certificate, of *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, what, ca, of.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	d.CA, d.CAFile = signed(ca, caKey), d.file("ca.pem")
	d.write(t, "ca.pem", d.CA)
	d.write(t, "dex.pem", signed(leaf, key))
	d.write(t, "dex.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	if d.http, err = signin.HTTPClient(d.CA, startWait); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (d *Dex) start() (err error) {
	cmd := exec.Command(d.binary, "serve", d.file("dex.yaml"))
	d.program, err = servertest.Start(cmd, startWait, func() error {
		resp, err := d.http.Get(d.URL + "/.well-known/openid-configuration")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return err
}
