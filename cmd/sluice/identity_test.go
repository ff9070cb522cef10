package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// joining is a worker that a test joins to a server in a process of its own.
type joining struct {
	t *testing.T
	s *testServer
	workerConfig
}

func newJoining(t *testing.T, s *testServer, name string) *joining {
	t.Helper()
	j := &joining{t: t, s: s}
	j.name, j.data, j.server = name, t.TempDir(), s.url
	return j
}

// hand puts a new token where the worker finds it.
func (j *joining) hand(ttl time.Duration) {
	j.t.Helper()
	token, err := j.s.client.CreateJoinToken(j.t.Context(), j.name, ttl)
	if err != nil {
		j.t.Fatal(err)
	}
	j.joinToken = filepath.Join(j.data, "token")
	if err := os.WriteFile(j.joinToken, []byte(token.Token+"\n"), 0o600); err != nil {
		j.t.Fatal(err)
	}
}

func (j *joining) find() (*identity.Held, error) {
	return j.findIdentity(j.t.Context(), slog.New(slog.DiscardHandler))
}

// reports calls the server as the worker does.
func (j *joining) reports() error {
	held, link, err := j.connect(j.t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer link.Close()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	err = link.Report(ctx, fleet.WorkerReport{Worker: fleet.WorkerID(held.Name().Worker)})
	if errs.Is(err, errs.NotFound) { // it has a certificate, and has not joined yet
		return nil
	}
	return err
}

func (j *joining) refused(what string, err error, kind errs.Kind, says string) {
	j.t.Helper()
	if !errs.Is(err, kind) || !strings.Contains(err.Error(), says) || errs.RemedyOf(err) == "" {
		j.t.Errorf("%s: %v (%s), try: %s; want %q", what, err, errs.KindOf(err),
			errs.RemedyOf(err), says)
	}
}

// TestAWorkerJoinsAServer that runs: by a token, once; it is known from then on, also to the server
// that was started anew, until it is revoked; and is let in again by another token.
func TestAWorkerJoinsAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newServer(t, dir, filepath.Join(dir, "data"))
	s.start()
	w1 := newJoining(t, s, "w1")
	_, err := w1.find()
	w1.refused("without a token", err, errs.NotFound, "no join token")
	w1.hand(time.Hour)
	thief := newJoining(t, s, "w1")
	thief.joinToken = w1.joinToken
	first, err := w1.find()
	if err != nil {
		t.Fatal(err)
	}
	_, err = thief.find()
	thief.refused("a token used twice", err, errs.Denied, "was used")
	thief.name = "w2"
	_, err = thief.find()
	thief.refused("a token of another", err, errs.Denied, "is for worker w1")
	if again, err := w1.find(); err != nil || again.Name() != first.Name() {
		t.Errorf("started again with its old token: %v", err)
	}
	if err := os.Remove(w1.joinToken); err != nil {
		t.Fatal(err)
	}
	if err := w1.reports(); err != nil {
		t.Errorf("with a certificate and no token: %v", err)
	}
	w1.name = "w3"
	_, err = w1.find()
	w1.refused("another name on its data", err, errs.Conflict, "certificate of worker w1")
	w1.name = "w1"

	if code := s.stop(); code != exitOK {
		t.Fatalf("the server ends with exit code %d:\n%s", code, s.stderr.String())
	}
	s.args[4] = strings.TrimPrefix(s.url, "https://") // its --listen: where it was
	s.start()
	if err := w1.reports(); err != nil {
		t.Errorf("after a restart of the server: %v", err)
	}
	if err := renewal(t, w1); err != nil {
		t.Errorf("a renewal: %v", err)
	}
	if _, err := s.client.RevokeWorker(t.Context(), "w1", "test"); err != nil {
		t.Fatal(err)
	}
	w1.refused("after it was revoked", w1.reports(), errs.Denied, "was revoked")
	w1.refused("a renewal then", renewal(t, w1), errs.Denied, "was revoked")
	w1.hand(time.Hour)
	if err := w1.reports(); err != nil {
		t.Errorf("with a new token: %v", err)
	}
	// A token that is not taken harms no worker that has a certificate.
	if err := os.WriteFile(w1.joinToken, []byte(identity.NewToken("x").String()),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := w1.reports(); err != nil {
		t.Errorf("with a token of another fleet beside its certificate: %v", err)
	}
}

func renewal(t *testing.T, j *joining) error {
	t.Helper()
	held, link, err := j.connect(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	return renewing{held, link}.Renew(t.Context())
}

// TestListenersOfAServer: TLS on each but loopback, where plain HTTP was asked for; and a program
// that knows nothing of fleets can check the certificate.
func TestListenersOfAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newServer(t, dir, filepath.Join(dir, "data"))
	s.start()
	ca, err := os.ReadFile(filepath.Join(dir, "data", "identity", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	get := func(url string, roots *x509.CertPool) (string, error) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots,
			MinVersion: tls.VersionTLS10}}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(url + "/healthz")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if body, err := get(s.url, roots); err != nil || !strings.Contains(body, "ok") {
		t.Errorf("%s: %q, %v", s.url, body, err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := get(s.url, x509.NewCertPool()); !errors.As(err, &unknown) {
		t.Errorf("without the authority: %v", err)
	}
	plain := strings.Replace(s.url, "https://", "http://", 1)
	if body, err := get(plain, nil); err == nil && !strings.Contains(body, "HTTPS server") {
		t.Errorf("plain HTTP is answered: %q", body)
	}
	old := &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12}
	if c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), old); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken")
	}
	if code := s.stop(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, s.stderr.String())
	}
	s.args = append(s.args, "--insecure-loopback", "--listen", "[::]:0")
	s.start()
	if !strings.HasPrefix(s.urls[0], "http://127.") || !strings.HasPrefix(s.urls[1], "https://") {
		t.Errorf("served on %v", s.urls)
	}
	if body, err := get(s.urls[0], nil); err != nil || !strings.Contains(body, "ok") {
		t.Errorf("%s: %q, %v", s.urls[0], body, err)
	}
	j := newJoining(t, s, "w1")
	j.hand(time.Hour)
	j.server = s.urls[0]
	_, err = j.find()
	j.refused("a worker over plain HTTP", err, errs.Invalid, "is not an https URL")
}
