package blobs_test

import (
	"context"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestSplitAndJoin(t *testing.T) {
	for _, c := range []struct{ url, pool, path string }{
		{"file:///d/store/disks/m1", "file:///d/store", "disks/m1"},
		{"file:///d/disks/store/disks/m1", "file:///d/disks/store", "disks/m1"},
		{"file:///d/store/disks/a/b", "file:///d/store", "disks/a/b"},
		{"file:///d/store/base", "file:///d/store", "base"},
		{"file:///base", "file:///", "base"},
		{"s3://bucket/prefix/disks/m1", "s3://bucket/prefix", "disks/m1"},
		{"s3://bucket/disks/m1", "s3://bucket", "disks/m1"},
		{"s3://bucket/p/disks/m1?endpoint=http%3A%2F%2F127.0.0.1%3A7&path_style=true",
			"s3://bucket/p?endpoint=http%3A%2F%2F127.0.0.1%3A7&path_style=true", "disks/m1"},
	} {
		pool, path, err := blobs.SplitDiskURL(c.url)
		if err != nil || pool != c.pool || path != c.path {
			t.Errorf("split %s: %q %q %v", c.url, pool, path, err)
		}
		if joined, err := blobs.JoinDiskURL(c.pool, c.path); err != nil || joined != c.url {
			t.Errorf("join %s and %s: %q %v", c.pool, c.path, joined, err)
		}
	}
	for _, bad := range []string{"", "file:///", "s3://bucket", "s3://bucket/", "http://x/disks/m1",
		"file:///d/disks/../x", "::"} {
		if pool, path, err := blobs.SplitDiskURL(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("split %q: %q %q %v", bad, pool, path, err)
		}
	}
}

// TestURLsAreReadWhole: what would be read as another place than the one that is written is
// refused, wherever a URL is read.
func TestURLsAreReadWhole(t *testing.T) {
	dir := "file://" + t.TempDir()
	for _, bad := range []string{
		dir + "/disks/x#frag", "s3://b/disks/x#frag", "s3://b/disks/x#", dir + "/disks/a%2Fb",
		"s3://b/disks/a%2fb", dir + "/disks/x?", "s3://b/disks/x?",
		dir + "/disks/a%0Ab", "s3://b/disks/x%00", "s3://b/disks/x%7f", "s3://b/p/../q/disks/x",
		"s3://b/p//disks/x", "s3://b/./disks/x", "s3://b/%2E%2E/disks/x",
	} {
		_, _, splitErr := blobs.SplitDiskURL(bad)
		_, _, logErr := blobs.SplitLogURL(bad)
		_, _, asLogErr := blobs.SplitLogURL("file:///d/m?log=" + url.QueryEscape(bad))
		_, openErr := blobs.Open(t.Context(), bad)
		for what, err := range map[string]error{"split": splitErr, "split the log off": logErr,
			"as a log": asLogErr, "open": openErr} {
			if !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
				t.Errorf("%s %q: %v", what, bad, err)
			}
		}
	}
	for _, good := range []string{dir + "/my pool/disks/x", dir + "/my%20pool/disks/x",
		dir + "//disks/x", "s3://b/disks/x%23", "s3://b/disks/x/", "s3://b/a%25b/disks/x"} {
		pool, path, err := blobs.SplitDiskURL(good)
		if err != nil {
			t.Error(err)
			continue
		}
		one, err := blobs.JoinDiskURL(pool, path)
		if err != nil {
			t.Error(err)
		}
		if again, againPath, err := blobs.SplitDiskURL(one); err != nil ||
			blobs.Canonical(again) != blobs.Canonical(pool) || againPath != path {
			t.Errorf("%s is written as %s: %q %q %v", good, one, again, againPath, err)
		}
	}
}

func TestSplitLogURL(t *testing.T) {
	for _, c := range []struct{ url, rest, log string }{
		{"file:///d/disks/m1", "file:///d/disks/m1", ""},
		{"file:///d/disks/m1?log=file:///fast/", "file:///d/disks/m1", "file:///fast"},
		{"s3://b/disks/m1?log=s3://fast/p", "s3://b/disks/m1", "s3://fast/p"},
		{"s3://b/disks/m1?region=x&log=s3://fast?endpoint=http://h%26region=y",
			"s3://b/disks/m1?region=x", "s3://fast?endpoint=http://h&region=y"},
	} {
		rest, log, err := blobs.SplitLogURL(c.url)
		if err != nil || rest != c.rest || log != c.log {
			t.Errorf("%s: %q %q %v", c.url, rest, log, err)
		}
	}
	for _, bad := range []string{"file:///d/m?log=", "file:///d/m?log=mem://",
		"file:///d/m?log=/fast", "file:///d/m?log=s3://a&log=s3://b",
		"file:///d/m?log=s3://a?log=s3://b"} {
		if rest, log, err := blobs.SplitLogURL(bad); !errs.Is(err, errs.Invalid) ||
			errs.RemedyOf(err) == "" {
			t.Errorf("%s: %q %q %v", bad, rest, log, err)
		}
	}
}

func TestOpenAndProbe(t *testing.T) {
	server := versitygwtest.Start(t)
	server.Setenv(t)
	for _, u := range []string{"mem://", "file://" + t.TempDir() + "/pool", server.URL("pool/a")} {
		s, err := blobs.Open(t.Context(), u)
		if err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		if err := blobs.Probe(t.Context(), s, u); err != nil {
			t.Errorf("%s: %v", u, err)
		}
		if err := s.List(t.Context(), "", "", func(e blob.Entry) bool {
			t.Errorf("%s: the probe left %s", u, e.Key)
			return true
		}); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefusesBadURLs(t *testing.T) {
	for _, u := range []string{"", "/d/store", "file://d/store", "http://h/", "s3://",
		"file:///d?x=y"} {
		if _, err := blobs.Open(t.Context(), u); !errs.Is(err, errs.Invalid) &&
			!errs.Is(err, errs.Denied) {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// The ways in which real servers are known to be wrong.

type ignoresAbsent struct{ blob.Store }

func (s ignoresAbsent) PutIfAbsent(ctx context.Context, key string,
	body []byte) (blob.ETag, error) {
	return s.Put(ctx, key, body)
}

type ignoresMatch struct{ blob.Store }

func (s ignoresMatch) PutIfMatch(ctx context.Context, key string, body []byte,
	_ blob.ETag) (blob.ETag, error) {
	return s.Put(ctx, key, body)
}

// checksFirst looks and then writes, which holds until two do so at once.
type checksFirst struct {
	blob.Store
	looking *atomic.Int32
}

func (s checksFirst) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if _, err := s.Get(ctx, key, blob.Range{}); err == nil {
		return "", errs.New(errs.Conflict, "exists")
	}
	if s.looking.Add(1) > 2 { // the first two are the probe's single writes
		for s.looking.Load() < 4 && ctx.Err() == nil { // let another one look, too
		}
	}
	return s.Put(ctx, key, body)
}

type ignoresStartAfter struct{ blob.Store }

func (s ignoresStartAfter) List(ctx context.Context, prefix, _ string,
	yield func(blob.Entry) bool) error {
	return s.Store.List(ctx, prefix, "", yield)
}

// marksReads is behind something that changes the ETags of what it passes on, but not those of
// conditions.
type marksReads struct{ blob.Store }

func (s marksReads) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	o, err := s.Store.Get(ctx, key, r)
	o.ETag += "-gzip"
	return o, err
}

type marksAll struct{ blob.Store }

func (s marksAll) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	return marksReads(s).Get(ctx, key, r)
}

func (s marksAll) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	etag, err := s.Store.PutIfAbsent(ctx, key, body)
	return etag + "-gzip", err
}

func TestProbeRefusesByName(t *testing.T) {
	for what, s := range map[string]blob.Store{
		"ignores If-None-Match":  ignoresAbsent{memblob.New()},
		"ignores If-Match":       ignoresMatch{memblob.New()},
		"checks, then writes":    checksFirst{memblob.New(), new(atomic.Int32)},
		"ignores start-after":    ignoresStartAfter{memblob.New()},
		"changes etags of reads": marksReads{memblob.New()},
		"changes all etags":      marksAll{memblob.New()},
	} {
		err := blobs.Probe(t.Context(), s, "s3://bad")
		if !errs.Is(err, errs.Unsupported) || errs.RemedyOf(err) == "" {
			t.Errorf("a store that %s: %v", what, err)
		}
		if listErr := s.List(t.Context(), "", "", func(e blob.Entry) bool {
			t.Errorf("%s: left %s",
				what, e.Key)
			return true
		}); listErr != nil {
			t.Error(listErr)
		}
	}
}

// TestProbeRefusesVersionsThatCount: versitygw takes what it keeps of a deleted object for the
// object.
func TestProbeRefusesVersionsThatCount(t *testing.T) {
	server := versitygwtest.StartVersioned(t)
	server.Setenv(t)
	admin := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &server.Endpoint, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(versitygwtest.AccessKey,
			versitygwtest.SecretKey, ""),
	})
	probe := func() error {
		s, err := blobs.Open(t.Context(), server.URL("pool"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return blobs.Probe(t.Context(), s, server.URL("pool"))
	}
	if err := probe(); err != nil {
		t.Errorf("a bucket without versions: %v", err)
	}
	if _, err := admin.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &server.Bucket, VersioningConfiguration: &types.VersioningConfiguration{
			Status: types.BucketVersioningStatusEnabled},
	}); err != nil {
		t.Fatal(err)
	}
	if err := probe(); !errs.Is(err, errs.Unsupported) ||
		!strings.Contains(err.Error(), "versions") {
		t.Errorf("a bucket with versions: kind %q: %v", errs.KindOf(err), err)
	}
}

func TestProbeLogNeedsNoOrder(t *testing.T) {
	if err := blobs.ProbeLog(t.Context(), ignoresStartAfter{memblob.New()},
		"s3://fast"); err != nil {
		t.Errorf("a log store without order in its listings: %v", err)
	}
	if err := blobs.ProbeLog(t.Context(), ignoresAbsent{memblob.New()}, "s3://fast"); !errs.Is(err,
		errs.Unsupported) {
		t.Errorf("a log store that ignores If-None-Match: %v", err)
	}
}

// TestProbeBeginsWithThePoint: what the store refuses comes first, and with what to do.
func TestProbeBeginsWithThePoint(t *testing.T) {
	server := versitygwtest.Start(t)
	server.Setenv(t)
	server.Bucket = "nobucket"
	s, err := blobs.Open(t.Context(), server.URL("pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = blobs.Probe(t.Context(), s, server.URL("pool"))
	if !errs.Is(err, errs.Denied) ||
		!strings.HasPrefix(err.Error(), "bucket nobucket does not exist") ||
		!strings.Contains(errs.RemedyOf(err), "create the bucket") {
		t.Errorf("kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
}

func TestProbeTellsAnOutage(t *testing.T) {
	s := decorate.Faults(memblob.New(), decorate.FaultConfig{Refused: 1})
	if err := blobs.Probe(t.Context(), s, "s3://away"); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
}

func TestCanonicalIsOneWayToWriteAStore(t *testing.T) {
	for in, want := range map[string]string{
		"s3://b/p/":                       "s3://b/p",
		"s3://b/":                         "s3://b",
		"s3://b":                          "s3://b",
		"s3://b/p?region=x&endpoint=y":    "s3://b/p?endpoint=y&region=x",
		"s3://b/p//q/./?endpoint=y&a=%2F": "s3://b/p/q?a=%2F&endpoint=y",
		"file:///srv/pool/":               "file:///srv/pool",
		"file:///":                        "file:///",
		"nothing":                         "nothing",
	} {
		if got := blobs.Canonical(in); got != want || blobs.Canonical(got) != got {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}
