package s3blob_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// noCredentials makes an environment in which the chain finds nothing, and returns the path of the
// file that it looks into.
func noCredentials(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_PROFILE", "AWS_CA_BUNDLE",
		"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "config"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return file
}

func writeProfile(t *testing.T, file, key, secret string) {
	t.Helper()
	text := "[default]\naws_access_key_id = " + key + "\naws_secret_access_key = " + secret + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// chained opens a store whose URL and environment have no credentials.
func chained(t *testing.T, endpoint string) *s3blob.Store {
	t.Helper()
	u, err := url.Parse("s3://bucket/" + versitygwtest.Prefix() + "?endpoint=" +
		url.QueryEscape(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s3blob.ParseURL(u, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3blob.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// eventually repeats f until it is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// TestCredentialsOfAProfile: those in a file are used, and read again when the store refuses what
// was read.
func TestCredentialsOfAProfile(t *testing.T) {
	server := versitygwtest.Start(t)
	file := noCredentials(t)
	s := chained(t, server.Endpoint)
	put := func() error { _, err := s.Put(t.Context(), "k", []byte("x")); return err }
	if err := put(); !errs.Is(err, errs.Denied) ||
		!strings.Contains(errs.RemedyOf(err), "AWS_PROFILE") {
		t.Fatalf("without credentials: kind %q, remedy %q: %v", errs.KindOf(err),
			errs.RemedyOf(err), err)
	}
	writeProfile(t, file, versitygwtest.AccessKey, "old")
	eventually(t, "the profile is read", func() bool {
		err := put()
		return errs.Is(err, errs.Denied) && strings.Contains(err.Error(), "SignatureDoesNotMatch")
	})
	writeProfile(t, file, versitygwtest.AccessKey, versitygwtest.SecretKey)
	eventually(t, "the profile is read again", func() bool { return put() == nil })
	writeProfile(t, file, "other", "other")
	if err := put(); err != nil {
		t.Errorf("credentials that the store takes are not looked for again: %v", err)
	}
}

// TestAnExpiredTokenIsReplaced: the refusal says how, and the next token is found by itself.
func TestAnExpiredTokenIsReplaced(t *testing.T) {
	file := noCredentials(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/new") ||
			strings.Contains(r.Header.Get("Authorization"), "=new/") {
			w.Header().Set("ETag", `"1"`)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		_,
			_ = w.Write(
			[]byte(
				`<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`))
	}))
	t.Cleanup(server.Close)
	writeProfile(t, file, "old", "secret")
	s := chained(t, server.URL)
	_, err := s.Put(t.Context(), "k", nil)
	if !errs.Is(err, errs.Denied) || !strings.Contains(errs.RemedyOf(err), "read again by itself") {
		t.Errorf("kind %q, remedy %q: %v", errs.KindOf(err), errs.RemedyOf(err), err)
	}
	writeProfile(t, file, "new", "secret")
	eventually(t, "the new token is used",
		func() bool { _, err := s.Put(t.Context(), "k", nil); return err == nil })
}

// TestNoMetadataServiceIsNoWait: a host where nothing answers in its place is told so before a
// command loses patience.
func TestNoMetadataServiceIsNoWait(t *testing.T) {
	noCredentials(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = chained(t, "http://127.0.0.1:1").Get(ctx, "k", blob.All())
	if ctx.Err() != nil || !errs.Is(err, errs.Denied) || !blobs.LacksCredentials(err) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("kind %q: %v", errs.KindOf(err), err)
	}
	t.Log(err)
}
