package signin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxAnswer bounds an answer of the issuer.
const maxAnswer = 1 << 20

const maxRedirects = 3

// HTTPClient returns what asks an issuer: for a bounded time, for bounded answers, and of no other
// host than it was asked of. ca vouches for it, in PEM; nil: this host's authorities do.
func HTTPClient(ca []byte, timeout time.Duration) (*http.Client, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errs.New(errs.Invalid, "the issuer's authority is no certificate in PEM")
		}
	}
	return &http.Client{
		Timeout: timeout,
		Transport: bounded{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig:        trust,
			TLSHandshakeTimeout:    timeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // it is asked so seldom
			ForceAttemptHTTP2:      true,
		}},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != via[0].URL.Scheme || r.URL.Host != via[0].URL.Host {
				return errs.New(errs.Unavailable, "it redirects to another host")
			}
			if len(via) > maxRedirects {
				return errs.New(errs.Unavailable, "it redirects again and again")
			}
			return nil
		},
	}, nil
}

// bounded fails answers that are too long.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errs.New(errs.Unavailable, "its answer is longer than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// CheckURL refuses the URL of an issuer that could be read or changed on the way.
func CheckURL(text string) error {
	_, err := checkURL(text)
	return err
}

// checkURL refuses what could be read or changed on the way: plain http is for loopback alone.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, errs.New(errs.Invalid, "%q is not like https://issuer.example.com", text)
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	}
	return nil, errs.New(errs.Invalid, "%q is neither https nor of this host's loopback", text)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// causeOf says why the issuer gave nothing, without addresses: strangers are told it, too.
func causeOf(err error) string {
	var (
		status  statusError
		op      *net.OpError
		dns     *net.DNSError
		netErr  net.Error
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		told    *errs.Error
		other   *oidc.IssuerMismatchError
	)
	switch {
	case errors.As(err, &told):
		return told.Message
	case errors.As(err, &other):
		return "it says that it is another issuer"
	case errors.As(err, &status):
		return status.Error()
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return "its certificate is not trusted"
	case errors.As(err, &dns):
		return "its name is not found"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "it doesn't answer in time"
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return "its answer can't be used"
}

// statusError is an answer that isn't 200.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("it answers with status %d", int(s)) }
