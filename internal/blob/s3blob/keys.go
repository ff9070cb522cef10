package s3blob

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Key is what requests to a store are signed with. No print or log of one has it.
type Key struct {
	AccessKey, SecretKey, SessionToken string
	Expires                            time.Time // zero: never
}

// String says nothing, so that no log can.
func (Key) String() string { return "(private)" }

// GoString says nothing either.
func (Key) GoString() string { return "(private)" }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return slog.StringValue("(private)") }

// Same reports whether two sign alike.
func (k Key) Same(o Key) bool {
	return k.AccessKey == o.AccessKey && k.SecretKey == o.SecretKey &&
		k.SessionToken == o.SessionToken
}

// Keys hands out the key of a store. Safe for concurrent use.
type Keys interface {
	// Key returns the key for the next request. It may wait for one, shortly.
	Key(ctx context.Context) (Key, error)
	// Others looks for another key, as the store has refused the one that was used, and reports
	// whether there is one now.
	Others(ctx context.Context, used Key) bool
	// Remedy says what a person does about a key that the store refuses; expired: because it has
	// expired.
	Remedy(expired bool) string
}

// OwnKeys returns those that a store of cfg uses by itself: the key in cfg, or what the SDK's usual
// chain finds.
func OwnKeys(cfg Config) Keys { return newAccess(cfg) }

// provider shows Keys to the SDK.
type provider struct{ keys Keys }

// Retrieve implements aws.CredentialsProvider.
func (p provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	k, err := p.keys.Key(ctx)
	if err != nil {
		return aws.Credentials{}, &keyError{err}
	}
	return aws.Credentials{AccessKeyID: k.AccessKey, SecretAccessKey: k.SecretKey,
		SessionToken: k.SessionToken, CanExpire: !k.Expires.IsZero(), Expires: k.Expires}, nil
}

// keyError says that there is no key to sign with, and keeps what Keys said through the SDK.
type keyError struct{ cause error }

func (e *keyError) Error() string { return e.cause.Error() }
func (e *keyError) Unwrap() error { return e.cause }

type usedKey struct{}

// noteUsed tells again with which key a request is signed.
func noteUsed(ctx context.Context, c aws.Credentials) {
	if used, ok := ctx.Value(usedKey{}).(*Key); ok {
		*used = Key{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey,
			SessionToken: c.SessionToken}
	}
}

// again sends a request, and once more if the store refused its key and there is another one by
// now. What the store has refused it hasn't done, so that a condition can't lose against itself.
func (s *Store) again(ctx context.Context, request func(context.Context) error) error {
	var used Key
	err := request(context.WithValue(ctx, usedKey{}, &used))
	var r *refusal
	if !errors.As(err, &r) || !r.ofKey() || used.AccessKey == "" || !s.keys.Others(ctx, used) {
		return err
	}
	return request(ctx)
}

// ofKey reports whether the store itself refused the key that a request was signed with, or what it
// may do: sessions of a role are taken away by a policy that denies.
func (r *refusal) ofKey() bool {
	if r.why != "" {
		return false
	}
	switch r.code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken",
		"ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidClientTokenId":
		return true
	}
	return false
}
