package s3blob

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go/logging"
)

const (
	credentialsRemedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and a profile, or give this host a role"
	renewPause        = time.Second      // between two looks for better credentials
	refreshAhead      = 30 * time.Second // before they expire
	lookTimeout       = 10 * time.Second // for all places together
)

// access is where the store's credentials come from: those of Config, or whatever the SDK's usual
// chain finds, which is asked again when they expire and when the store says that they are no good.
type access struct {
	fixed  bool
	cache  *aws.CredentialsCache
	looked atomic.Int64 // when the chain was asked last, in Unix nanoseconds
	found  atomic.Bool  // it had some once, so that it may have some again
}

func newAccess(cfg Config) *access {
	a := &access{fixed: cfg.AccessKey != ""}
	if a.fixed {
		a.cache = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(cfg.AccessKey,
			cfg.SecretKey, cfg.SessionToken))
		return a
	}
	a.cache = aws.NewCredentialsCache(aws.CredentialsProviderFunc(a.look),
		func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = refreshAhead })
	return a
}

// look asks the chain from its beginning, so that files are read anew: the SDK keeps what it has
// read of them.
func (a *access) look(ctx context.Context) (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	a.looked.Store(time.Now().UnixNano())
	// A host that has no metadata service must not wait for one three times.
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithLogger(logging.Nop{}))
	if err != nil {
		return aws.Credentials{}, &CredentialsError{plain(err), a.found.Load()}
	}
	found, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &CredentialsError{plain(err), a.found.Load()}
	}
	a.found.Store(true)
	return found, nil
}

// Key implements Keys.
func (a *access) Key(ctx context.Context) (Key, error) {
	c, err := a.cache.Retrieve(ctx)
	if err != nil {
		return Key{}, err
	}
	k := Key{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, SessionToken: c.SessionToken}
	if c.CanExpire {
		k.Expires = c.Expires
	}
	return k, nil
}

// Others implements Keys: it has the chain asked again, as the store refuses what it has given.
func (a *access) Others(ctx context.Context, used Key) bool {
	if a.fixed {
		return false
	}
	if time.Since(time.Unix(0, a.looked.Load())) > renewPause {
		a.cache.Invalidate()
	}
	now, err := a.Key(ctx)
	return err == nil && !now.Same(used)
}

// Remedy implements Keys: it says how to bring another key, or a new session token.
func (a *access) Remedy(expired bool) string {
	if !expired {
		return "check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"
	}
	if a.fixed {
		return "start again with a new session token in AWS_SESSION_TOKEN, or keep it in a profile (AWS_PROFILE), which is read again when it changes"
	}
	return "put a new session token where these came from, such as ~/.aws/credentials: it is read again by itself"
}

// signer signs by the secret that it is given: the SDK's own goes on with the one that it first had
// for an access key.
type signer struct {
	now atomic.Pointer[secretSigner]
}

type secretSigner struct {
	secret string
	*v4.Signer
}

// SignHTTP implements s3.HTTPSignerV4.
func (s *signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service,
	region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	noteUsed(ctx, c)
	now := s.now.Load()
	if now == nil || now.secret != c.SecretAccessKey {
		now = &secretSigner{c.SecretAccessKey,
			v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
		s.now.Store(now)
	}
	return now.Signer.SignHTTP(ctx, c, r, hash, service, region, at, opts...)
}

// CredentialsError says that the chain has none.
type CredentialsError struct {
	cause error
	again bool // there were some before
}

// Error returns what the chain said.
func (e *CredentialsError) Error() string { return e.cause.Error() }

// Unwrap returns it.
func (e *CredentialsError) Unwrap() error { return e.cause }
