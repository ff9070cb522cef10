package devfleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	s3Port   = "7480"
	s3Bucket = "sluice"
)

// ensureS3 starts an S3 server of the fleet's own on the bridge, if it isn't running.
func (f *Fleet) ensureS3(ctx context.Context, cfg Config, s *State) error {
	if s.S3 != nil && s.S3.Alive() {
		return nil
	}
	if cfg.S3Server == "" {
		return errs.New(errs.NotFound, "no S3 server to start for --store s3").
			WithRemedy("install it with scripts/install-versitygw.sh, and name it with --s3-server")
	}
	secret, err := os.ReadFile(f.operatorToken())
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	key := strings.TrimSpace(string(secret))
	// The server keeps each bucket as a directory.
	if err := os.MkdirAll(f.path("store", s3Bucket), 0o755); err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	// With accounts that its administrator can make, so that the fleet's key can be changed.
	if err := os.MkdirAll(f.path("accounts"), 0o700); err != nil {
		return fmt.Errorf("create directory of the S3 server's accounts: %w", err)
	}
	addr := net.JoinHostPort(f.ServerAddress().String(), s3Port)
	p, err := command{
		args: []string{cfg.S3Server, "--quiet", "--port", addr, "--iam-dir", f.path("accounts"),
			"posix", f.storeDir()},
		env: []string{"ROOT_ACCESS_KEY=sluice", "ROOT_SECRET_KEY=" + key},
		log: f.logFile("s3"),
	}.start()
	if err != nil {
		return err
	}
	s.S3 = &p
	s.StoreURL = fmt.Sprintf("s3://%s/fleet?endpoint=http://%s&region=us-east-1&path_style=true",
		s3Bucket, addr)
	s.StoreEnv = []string{"AWS_ACCESS_KEY_ID=sluice", "AWS_SECRET_ACCESS_KEY=" + key}
	if err := f.save(s); err != nil {
		return err
	}
	return waitHTTP(ctx, "http://"+addr+"/", 20*time.Second)
}

// storeKeyVariables are those by which a process has credentials of a store. Workers get none of
// them: the server gives them theirs, as it does in production.
var storeKeyVariables = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}

// storeKeyArgs has the server read the key of the fleet's own S3 server from a file, which is made
// if it isn't there; none for another store, whose key is in the environment or a profile.
func (f *Fleet) storeKeyArgs(s *State) ([]string, error) {
	if s.S3 == nil {
		return nil, nil
	}
	env := map[string]string{}
	for _, kv := range s.StoreEnv {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	if _, err := os.Stat(f.storeKey()); errors.Is(err, fs.ErrNotExist) {
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
			env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
		if err := atomicfile.Write(f.storeKey(), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return []string{"--store-credentials-file", f.storeKey()}, nil
}

// waitHTTP waits until something answers HTTP at url, with whatever status.
func waitHTTP(ctx context.Context, url string, limit time.Duration) error {
	limit = onhost.Patient(limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", url, err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		if backoff.Sleep(ctx, 20*time.Millisecond) != nil {
			return errs.Wrap(errs.Unavailable, err, "no answer from %s within %s", url, limit)
		}
	}
}
