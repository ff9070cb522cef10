// Package dextest runs a real OpenID Connect issuer for a test: dex, over TLS on a free port of the
// loopback interface, which ends with the test. It is found in .cache/bin of the repository, or
// installed there by scripts/install-dex.sh.
package dextest

import (
	"bytes"
	"context"
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
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/signin"
)

// ClientID is that of the fleet.
const ClientID = "sluice"

const (
	startWait   = time.Minute
	installWait = 20 * time.Minute
)

// Dex is a running issuer.
type Dex struct {
	URL    string // the issuer
	CA     []byte // that vouches for it, in PEM
	CAFile string

	addr, dir string
	http      *http.Client
	process   *os.Process
	ended     chan error
}

// Start starts an issuer whose ID tokens last for life.
func Start(t testing.TB, life time.Duration) *Dex {
	t.Helper()
	binary := install(t)
	d := &Dex{dir: t.TempDir()}
	t.Cleanup(d.Kill)
	d.certify(t)
	for range 5 {
		// The port is free now, and may not be in a moment; then dex ends, and another is tried.
		d.addr = freePort(t)
		d.URL = "https://" + d.addr + "/dex"
		d.write(t, "dex.yaml", []byte(d.config(life)))
		err := d.start(binary)
		if err == nil {
			return d
		}
		t.Log(err)
	}
	t.Fatal("dex did not start on any of 5 ports")
	return nil
}

// Kill ends the issuer at once. It may be called any number of times.
func (d *Dex) Kill() {
	if d.process == nil {
		return
	}
	_ = d.process.Kill()
	<-d.ended
	d.process = nil
}

// Restart starts the issuer again where it was before Kill. It has forgotten all, and has new keys.
func (d *Dex) Restart(t testing.TB) {
	t.Helper()
	if err := d.start(install(t)); err != nil {
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

func (d *Dex) start(binary string) error {
	cmd := exec.Command(binary, "serve", d.file("dex.yaml"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	var waiter errgroup.Group
	waiter.Go(func() error {
		ended <- cmd.Wait()
		return nil
	})
	for deadline := time.Now().Add(startWait); ; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("dex on %s ended: %w\n%s", d.addr, err, out.String())
		default:
		}
		resp, err := d.http.Get(d.URL + "/.well-known/openid-configuration")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-ended
			return fmt.Errorf("dex on %s did not answer within %s: %w\n%s", d.addr, startWait, err,
				out.String())
		}
	}
	d.process, d.ended = cmd.Process, ended
	return nil
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// install returns the path of the issuer's binary.
func install(t testing.TB) string {
	t.Helper()
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no source path")
	}
	script := filepath.Join(filepath.Dir(here), "..", "..", "..", "scripts", "install-dex.sh")
	ctx, cancel := context.WithTimeout(t.Context(), installWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}
