package s3blob_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobtest"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func open(t *testing.T, endpoint, prefix string) *s3blob.Store {
	t.Helper()
	s, err := s3blob.New(s3blob.Config{
		Bucket: "bucket", Prefix: prefix, Endpoint: endpoint, Region: "us-east-1", PathStyle: true,
		AccessKey: versitygwtest.AccessKey, SecretKey: versitygwtest.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	server := versitygwtest.Start(t)
	blobtest.Run(t, blobtest.Target{
		Open: func(t *testing.T) blob.Store {
			return open(t, server.Endpoint,
				versitygwtest.Prefix())
		},
		ListSize: 2100,
	})
}

func TestServerErrors(t *testing.T) {
	server := versitygwtest.Start(t)
	get := func(c s3blob.Config) error {
		c.Endpoint, c.Region, c.PathStyle = server.Endpoint, "us-east-1", true
		s, err := s3blob.New(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Get(t.Context(), "k", blob.All())
		return err
	}
	if err := get(s3blob.Config{Bucket: "none", AccessKey: versitygwtest.AccessKey,
		SecretKey: versitygwtest.SecretKey}); !errs.Is(err, errs.Denied) ||
		!strings.HasPrefix(err.Error(), "bucket none does not exist") || errs.RemedyOf(err) == "" {
		t.Errorf("missing bucket: kind %q: %v", errs.KindOf(err), err)
	}
	if err := get(s3blob.Config{Bucket: "Bad_Name", AccessKey: versitygwtest.AccessKey,
		SecretKey: versitygwtest.SecretKey}); !errs.Is(err, errs.Denied) ||
		!strings.Contains(errs.RemedyOf(err), "lower-case") {
		t.Errorf("a name that no bucket has: kind %q, remedy %q: %v", errs.KindOf(err),
			errs.RemedyOf(err), err)
	}
	if err := get(s3blob.Config{Bucket: "bucket", AccessKey: versitygwtest.AccessKey,
		SecretKey: "wrong"}); !errs.Is(err, errs.Denied) || errs.RemedyOf(err) == "" {
		t.Errorf("wrong secret: kind %q: %v", errs.KindOf(err), err)
	}
}

// Each request is sent once, whatever comes back.
func TestAnswersAndTheirKinds(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   errs.Kind
	}{
		{409, "ConditionalRequestConflict", errs.Unavailable},
		{412, "PreconditionFailed", errs.Conflict},
		{503, "SlowDown", errs.Unavailable},
		{500, "InternalError", errs.Unavailable},
		{400, "RequestTimeout", errs.Unavailable},
		{501, "NotImplemented", errs.Unsupported},
		{403, "AccessDenied", errs.Denied},
		{404, "NoSuchKey", errs.NotFound},
		{404, "NoSuchBucket", errs.Denied},
		{502, "", errs.Unavailable},
		{404, "", errs.Unavailable},
		{412, "", errs.Unavailable},
		{400, "SomethingNew", errs.Denied},
		{404, "SomethingNew", errs.Denied},
	} {
		calls := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.WriteHeader(c.status)
			if c.code != "" {
				_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>` + c.code +
					`</Code><Message>m</Message></Error>`))
			}
		}))
		_, err := open(t, server.URL, "").PutIfAbsent(t.Context(), "k", []byte("x"))
		server.Close()
		if !errs.Is(err, c.want) || calls != 1 {
			t.Errorf("%d %s: kind %q after %d calls, want %q: %v", c.status, c.code,
				errs.KindOf(err), calls, c.want, err)
		}
	}
}

func TestCutAndSilentConnections(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request) {
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(cut.Close)
	if _, err := open(t, cut.URL, "").PutIfAbsent(t.Context(), "k", nil); !errs.Is(err,
		errs.Unavailable) {
		t.Errorf("cut connection: %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := open(t, "http://"+silent.Addr().String(), "").Get(ctx, "k",
		blob.All()); !errs.Is(err, errs.Unavailable) {
		t.Errorf("silent server: %v", err)
	}
}

func TestParseURL(t *testing.T) {
	env := map[string]string{
		"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-central-1",
		"AWS_CA_BUNDLE": "/does/not/exist",
	}
	parse := func(s string) (s3blob.Config, error) {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return s3blob.ParseURL(u, func(k string) string { return env[k] })
	}
	got, err := parse("s3://bucket/a/b/?endpoint=http%3A%2F%2F127.0.0.1%3A7070")
	if err != nil {
		t.Fatal(err)
	}
	want := s3blob.Config{
		Bucket: "bucket", Prefix: "a/b", Endpoint: "http://127.0.0.1:7070", Region: "eu-central-1",
		PathStyle: true,
		AccessKey: "id", SecretKey: "secret", CABundle: "/does/not/exist",
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// A bundle that isn't needed must not be in the way; one that is must be readable.
	if _, err := s3blob.New(got); err != nil {
		t.Errorf("unused certificate bundle: %v", err)
	}
	if got, err = parse("s3://bucket?region=us-west-2"); err != nil || got.PathStyle ||
		got.Region != "us-west-2" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s3blob.New(got); !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
		t.Errorf("missing certificate bundle: %v", err)
	}
	for _, bad := range []string{"s3:///prefix", "s3://b?endpoint=nonsense",
		"s3://b?path_style=maybe", "s3://id:key@b/p", "s3://b?acces_key=x"} {
		if _, err := parse(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	delete(env, "AWS_SECRET_ACCESS_KEY")
	if _, err := parse("s3://bucket"); !errs.Is(err, errs.Denied) || errs.RemedyOf(err) == "" {
		t.Errorf("no credentials: %v", err)
	}
}

// TestThrottling: which answers ask for fewer requests, and for how long the store wants none.
func TestThrottling(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, wait string
		throttled  bool
		after      time.Duration
	}{
		{503, "SlowDown", "7", true, 7 * time.Second},
		{503, "SlowDown", "", true, 0},
		{503, "", "2", true, 2 * time.Second},
		{503, "", "", false, 0},
		{429, "", "soon", true, 0},
		{503, "SlowDown", "86400", true, blob.MaxRetryAfter},
		{500, "InternalError", "", false, 0},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.wait != "" {
				w.Header().Set("Retry-After", c.wait)
			}
			w.WriteHeader(c.status)
			if c.code != "" {
				_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>` + c.code +
					`</Code><Message>m</Message></Error>`))
			}
		}))
		_, err := open(t, server.URL, "").PutIfAbsent(t.Context(), "k", []byte("x"))
		server.Close()
		after, throttled := blob.ThrottledFor(err)
		if !errs.Is(err, errs.Unavailable) || throttled != c.throttled || after != c.after {
			t.Errorf("%+v: throttled %v for %v: %v", c, throttled, after, err)
		}
	}
}

// TestFullAndRefused: what is the matter, and what to do about it.
func TestFullAndRefused(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		kind   errs.Kind
	}{{507, "InsufficientStorage", errs.Exhausted}, {507, "SomethingNew", errs.Exhausted},
		{403, "QuotaExceeded", errs.Exhausted}, {403, "AccessDenied", errs.Denied},
		{400, "ExpiredToken", errs.Denied}} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			if c.code != "" {
				_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>` + c.code +
					`</Code><Message>m</Message></Error>`))
			}
		}))
		_, err := open(t, server.URL, "").PutIfAbsent(t.Context(), "k", []byte("x"))
		server.Close()
		if !errs.Is(err, c.kind) || errs.RemedyOf(err) == "" {
			t.Errorf("%+v: %q, remedy %q: %v", c, errs.KindOf(err), errs.RemedyOf(err), err)
		}
	}
}
