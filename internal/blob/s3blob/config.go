package s3blob

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// requests that find a connection: of all the disks of a worker, each with a handshake else
	parallel      = 256
	headerTimeout = 30 * time.Second
	dialTimeout   = 5 * time.Second
	defaultRegion = "us-east-1"
)

// Config says which bucket, and how to reach it.
type Config struct {
	Bucket    string
	Prefix    string // without slashes at the ends; may be empty
	Endpoint  string // such as http://127.0.0.1:7070; empty for AWS
	Region    string
	PathStyle bool

	// empty: whatever the SDK's usual chain finds, see New
	AccessKey, SecretKey, SessionToken string
	Keys                               Keys // in place of these; nil: none
	// a PEM file of more certificate authorities to trust; may be empty
	CABundle string
}

// ParseURL reads s3://bucket/prefix?endpoint=…&region=…&path_style=true. What the URL doesn't say
// comes from the usual AWS environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
// AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
// AWS_CA_BUNDLE), looked up by getenv. Credentials are never part of the URL, because disk URLs are
// shown and logged. A custom endpoint is spoken to in path style unless the URL says otherwise.
func ParseURL(u *url.URL, getenv func(string) string) (Config, error) {
	env := func(names ...string) string {
		for _, name := range names {
			if v := getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	c := Config{
		Bucket:       u.Host,
		Prefix:       strings.Trim(u.Path, "/"),
		Endpoint:     env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
		Region:       env("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccessKey:    env("AWS_ACCESS_KEY_ID"),
		SecretKey:    env("AWS_SECRET_ACCESS_KEY"),
		SessionToken: env("AWS_SESSION_TOKEN"),
		CABundle:     env("AWS_CA_BUNDLE"),
	}
	query := u.Query()
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			c.Endpoint = value
		case "region":
			c.Region = value
		case "path_style":
		default:
			return Config{}, errs.New(errs.Invalid, "s3 URL has the unknown parameter %q", name).
				WithRemedy(
					"use endpoint, region or path_style; credentials come from the environment")
		}
	}
	c.PathStyle = c.Endpoint != ""
	if query.Has("path_style") {
		on, err := strconv.ParseBool(query.Get("path_style"))
		if err != nil {
			return Config{}, errs.Wrap(errs.Invalid, err, "s3 URL's path_style")
		}
		c.PathStyle = on
	}
	if c.Region == "" {
		c.Region = defaultRegion
	}
	return c, c.validate(u)
}

func (c Config) validate(u *url.URL) error {
	switch {
	case c.Bucket == "":
		return errs.New(errs.Invalid, "s3 URL without a bucket").WithRemedy(
			"write s3://bucket/prefix")
	case u.User != nil:
		return errs.New(errs.Invalid, "s3 URL with credentials in it").
			WithRemedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, instead")
	case (c.AccessKey == "") != (c.SecretKey == ""):
		return errs.New(errs.Denied, "half of the credentials for bucket %s are missing", c.Bucket).
			WithRemedy("set both, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or none of them")
	}
	if c.Endpoint != "" {
		e, err := url.Parse(c.Endpoint)
		if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" {
			return errs.New(errs.Invalid, "bad s3 endpoint %q", c.Endpoint).
				WithRemedy("write http://host:port or https://host")
		}
	}
	return nil
}

// Transport returns a connection pool for parallel requests, by way of the proxy and with the
// authorities of cfg.
func (c Config) Transport() (*http.Transport, error) {
	t := &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialTimeout,
			KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:          2 * parallel,
		MaxIdleConnsPerHost:   parallel,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		// a listing that something compresses on the way may get a weak ETag, and objects don't
		// compress
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if !strings.HasPrefix(c.Endpoint, "http://") { // an endpoint without TLS is one's own, nearby
		t.Proxy = http.ProxyFromEnvironment
	}
	if c.CABundle == "" || strings.HasPrefix(c.Endpoint, "http://") {
		return t, nil
	}
	pem, err := os.ReadFile(c.CABundle)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err,
			"read the certificate authorities").WithRemedy("correct or unset AWS_CA_BUNDLE")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a host without any; the bundle has to do
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "no certificate in %s", c.CABundle).
			WithRemedy("correct or unset AWS_CA_BUNDLE")
	}
	t.TLSClientConfig.RootCAs = roots
	return t, nil
}
