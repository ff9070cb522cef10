package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/s3role"
	"github.com/sluice-platform/sluice/internal/storekeys"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/servertest"
)

const storeRole = "arn:aws:iam::000000000000:role/Worker"

// startSeaweed starts a real S3 server with an STS, which ends with the test, and returns its URL.
// The role of which it gives sessions may do everything itself, as may the key server_key.
func startSeaweed(t *testing.T) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(filepath.Dir(here), "../../.cache/bin/weed")
	if _, err := os.Stat(binary); err != nil {
		t.Skip("needs an S3 server with an STS: scripts/install-seaweedfs.sh")
	}
	dir := t.TempDir()
	const all = `{"Version":"2012-10-17",
 "Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["*"]}]}`
	config := fmt.Sprintf(`{
 "identities":[{"name":"server",
  "credentials":[{"accessKey":"server_key","secretKey":"server_secret"}],
  "actions":["Admin","Read","Write","List","Tagging"]}],
 "sts":{"tokenDuration":"1h","maxSessionLength":"12h","issuer":"test","signingKey":"%s"},
 "policy":{"defaultEffect":"Deny","storeType":"memory"},
 "policies":[{"name":"All","document":%s}],
 "roles":[{"roleName":"Worker","roleArn":"%s","attachedPolicies":["All"],
  "trustPolicy":{"Version":"2012-10-17",
   "Statement":[{"Effect":"Allow","Principal":"*","Action":["sts:AssumeRole"]}]}}]}`,
		base64.StdEncoding.EncodeToString([]byte("a key of the test's own, 32 bytes")), all,
		storeRole)
	file := filepath.Join(dir, "iam.json")
	for name, text := range map[string]string{file: config,
		filepath.Join(dir, "security.toml"): ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"server", "-dir", dir, "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-filer",
		"-s3", "-s3.config", file, "-s3.iam.config", file, "-s3.port.lance=0", "-s3.port.iceberg=0"}
	flags := []string{"master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
		"filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port"}
	ports := freePorts(t, len(flags))
	for i, name := range flags {
		args = append(args, fmt.Sprintf("-%s=%d", name, ports[i]))
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[len(ports)-1])
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	program, err := servertest.Start(cmd, 2*time.Minute, func() error {
		resp, err := http.Get(url + "/status")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(program.Kill)
	return url
}

// awaitWrites returns once the S3 server writes on condition: it answers some seconds before that.
func awaitWrites(t *testing.T, s blob.Store) {
	t.Helper()
	for i, deadline := 0, time.Now().Add(2*time.Minute); ; i++ {
		_, err := s.PutIfAbsent(t.Context(), fmt.Sprintf("ready/%d", i), nil)
		if err == nil {
			return
		}
		if !errs.Is(err, errs.Unavailable) || time.Now().After(deadline) {
			t.Fatalf("the S3 server does not write: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	var open []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range open {
		l.Close()
	}
	return ports
}

// one is a key that never changes.
type one struct{ key s3blob.Key }

func (o one) Key(context.Context) (s3blob.Key, error) { return o.key, nil }
func (one) Others(context.Context, s3blob.Key) bool   { return false }
func (one) Remedy(bool) string                        { return "" }

// TestStoreRole: at a real STS, what a worker gets lets it do what its gateway does, and nothing
// else of what the server and the role may do.
func TestStoreRole(t *testing.T) {
	endpoint := startSeaweed(t)
	url := "s3://bucket/fleet?endpoint=" + endpoint + "&region=us-east-1&path_style=true"
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = server_key\n"+
		"aws_secret_access_key = server_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := storekeys.New(t.Context(), storekeys.Config{Store: url, File: file,
		Log:  slog.New(slog.DiscardHandler),
		Role: s3role.Role{ARN: storeRole, Endpoint: endpoint, Term: 15 * time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	open := func(url string, keys s3blob.Keys) blob.Store {
		t.Helper()
		s, err := blobs.OpenWith(t.Context(), url, keys)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	ctx, own := t.Context(), open(url, source)
	awaitWrites(t, own)
	if err := blobs.Probe(ctx, own, "seaweedfs"); err != nil {
		t.Fatal(err)
	}
	var tag blob.ETag
	for _, key := range []string{"audit/1", "fleet.json", "disks/a/head"} {
		if tag, err = own.Put(ctx, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.Replace(url, "/fleet?", "/other?", 1)
	if _, err := open(other, source).Put(ctx, "disks/b/head", nil); err != nil {
		t.Fatal(err)
	}
	c, err := source.StoreCredentials(ctx, "w1", 0)
	if err != nil || c.SessionToken == "" || c.TTL < 14*time.Minute || c.TTL > 15*time.Minute {
		t.Fatalf("%s, %v", c.TTL, err)
	}
	session := one{s3blob.Key{AccessKey: c.AccessKey, SecretKey: c.SecretKey,
		SessionToken: c.SessionToken}}
	worker := open(url, session)
	elsewhere := open(other, session)
	get := func(s blob.Store, key string) func() error {
		return func() error { _, err := s.Get(ctx, key, blob.All()); return err }
	}
	put := func(key string) func() error {
		return func() error { _, err := worker.Put(ctx, key, nil); return err }
	}
	list := func(s blob.Store, prefix string) (keys []string, err error) {
		err = s.List(ctx, prefix, "", func(e blob.Entry) bool {
			keys = append(keys, e.Key)
			return true
		})
		return keys, err
	}
	for what, c := range map[string]struct {
		do   func() error
		want errs.Kind // "": it works
	}{
		"read a disk": {get(worker, "disks/a/head"), ""},
		"write a disk": {func() error {
			_, err := worker.PutIfAbsent(ctx, "disks/a/log/1", nil)
			return err
		}, ""},
		"replace a head": {func() error {
			_, err := worker.PutIfMatch(ctx, "disks/a/head", []byte("y"), tag)
			return err
		}, ""},
		"list a disk": {func() error {
			keys, err := list(worker, "disks/a/")
			if err == nil && !slices.Contains(keys, "disks/a/head") {
				err = fmt.Errorf("it has %v", keys)
			}
			return err
		}, ""},
		"what isn't there": {get(worker, "disks/a/none"), errs.NotFound},
		"delete": {func() error { return worker.Delete(ctx, "disks/a/head") },
			errs.Denied},
		"read the audit log":          {get(worker, "audit/1"), errs.Denied},
		"write the audit log":         {put("audit/2"), errs.Denied},
		"replace the pool's record":   {put("fleet.json"), errs.Denied},
		"read a disk of another pool": {get(elsewhere, "disks/b/head"), errs.Denied},
		"list the pool": {func() error { _, err := list(worker, ""); return err },
			errs.Denied},
	} {
		err := c.do()
		if c.want == "" && err != nil || c.want != "" && !errs.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
